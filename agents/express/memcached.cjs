'use strict';
// A client of one Memcached for connect-memcached, which takes one that is made elsewhere. Its own, the package memcached,
// leaves requests without an answer when a connection breaks, does not tell of writes that were refused, and ends the process
// where the image has no program `ping`.
//
// One connection, on which commands wait for their answers in turn: memcached's text protocol
// (https://github.com/memcached/memcached/blob/master/doc/protocol.txt).

const net = require('node:net');

/** Seconds above which memcached takes a life for a point in time (protocol.txt, "Expiration times"). */
const LONGEST_LIFE = 60 * 60 * 24 * 30;

/** Milliseconds between packets that find out whether the server is still there. */
const KEEP_ALIVE = 30000;

/** Bytes of a key, none of which may be a space or a control character. */
const KEY = /^[^\s\x00-\x1f\x7f]{1,250}$/;

const ERROR = /^(ERROR|CLIENT_ERROR|SERVER_ERROR)/;

exports.Client = class Client {
  /** `timeout` in milliseconds: for an answer, and for the connection on which it is to come. */
  constructor({ host, port, timeout, report }) {
    Object.assign(this, { host, port, timeout, report });
    this.socket = undefined;
    this.waiting = [];
    this.received = Buffer.alloc(0);
  }

  get(key, callback) {
    this.ask(key, `get ${key}\r\n`, callback, (answer) => {
      if (answer.line === 'END') {
        return undefined;
      }
      return JSON.parse(answer.value.toString('utf8'));
    });
  }

  set(key, value, seconds, callback) {
    const body = Buffer.from(JSON.stringify(value), 'utf8');
    // 0 would be for ever.
    const life = Math.max(1, Math.floor(seconds));
    const expiry = life > LONGEST_LIFE ? Math.floor(Date.now() / 1000) + life : life;
    const head = Buffer.from(`set ${key} 0 ${expiry} ${body.length}\r\n`, 'utf8');
    this.ask(key, Buffer.concat([head, body, Buffer.from('\r\n')]), callback, (answer) => expect(answer, ['STORED']));
  }

  del(key, callback) {
    this.ask(key, `delete ${key}\r\n`, callback, (answer) => expect(answer, ['DELETED', 'NOT_FOUND']));
  }

  /** What connect-memcached asks for the number of all sessions, which nobody but an administrator is to know. */
  items(callback) {
    callback(new Error('sessions in Memcached cannot be counted'));
  }

  /** What connect-memcached ends all sessions with. */
  flush(callback) {
    callback(new Error('sessions in Memcached cannot be ended all at once'));
  }

  ask(key, command, callback, read) {
    if (!KEY.test(key)) {
      process.nextTick(callback, new Error('the id of the session cannot be a key of Memcached'));
      return;
    }
    const question = { read, callback };
    // The answers that follow one that is late could not be told apart.
    question.timer = setTimeout(() => this.fail(new Error(`no answer within ${this.timeout} ms`)), this.timeout);
    this.waiting.push(question);
    this.connection().write(command);
  }

  connection() {
    if (!this.socket) {
      const socket = net.connect({ host: this.host, port: this.port, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE });
      const current = (work) => (argument) => {
        if (this.socket === socket) {
          work(argument);
        }
      };
      socket.setNoDelay(true);
      socket.on('data', current((data) => this.read(data)));
      socket.on('error', current((error) => this.fail(error)));
      socket.on('close', current(() => this.fail(new Error('the server closed the connection'))));
      // An application that waits for its process to end must not wait for this connection; a question that waits for its
      // answer has a timer.
      socket.unref();
      this.socket = socket;
    }
    return this.socket;
  }

  /** Gives up the connection, and with it all questions on it; the next one makes another. */
  fail(error) {
    const { socket, waiting } = this;
    this.socket = undefined;
    this.waiting = [];
    this.received = Buffer.alloc(0);
    if (socket) {
      // What it still has to say is of no interest.
      socket.on('error', () => {});
      socket.destroy();
    }
    if (waiting.length) {
      this.report(error);
    }
    for (const question of waiting) {
      clearTimeout(question.timer);
      question.callback(error);
    }
  }

  read(data) {
    this.received = this.received.length ? Buffer.concat([this.received, data]) : data;
    for (let answer = this.next(); answer; answer = this.next()) {
      const question = this.waiting.shift();
      if (!question) {
        this.fail(new Error('an answer that nobody asked for'));
        return;
      }
      clearTimeout(question.timer);
      let result;
      try {
        if (ERROR.test(answer.line)) {
          throw new Error(answer.line);
        }
        result = question.read(answer);
      } catch (error) {
        this.report(error);
        question.callback(error);
        continue;
      }
      question.callback(undefined, result);
    }
  }

  /** The first whole answer of what has been received. */
  next() {
    const end = this.received.indexOf('\r\n');
    if (end < 0) {
      return undefined;
    }
    const line = this.received.toString('latin1', 0, end);
    if (!line.startsWith('VALUE ')) {
      this.received = this.received.subarray(end + 2);
      return { line };
    }
    const start = end + 2;
    const stop = start + Number(line.split(' ')[3]);
    // The value, a line break, END and another one.
    if (this.received.length < stop + 7) {
      return undefined;
    }
    const value = this.received.subarray(start, stop);
    this.received = this.received.subarray(stop + 7);
    return { line, value };
  }
};

function expect({ line }, words) {
  if (!words.includes(line)) {
    throw new Error(`an unexpected answer: ${line}`);
  }
  return true;
}
