'use strict';
// The store of a SessionPolicy, set up by the variables that it adds to the container.

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const Module = require('node:module');

/** Milliseconds for a connection, and for an answer. */
const TIMEOUT = 5000;

/**
 * Milliseconds in which a write that failed is tried again: longer than another server needs to take over, and than the proxies in
 * front of applications wait for an answer (60 s, most of them). express-session answers users also when it could not write, so
 * a write that is given up before they have given up is lost without anybody noticing.
 */
const PATIENCE = 75000;

/** Milliseconds between two attempts. */
const PAUSE = 200;

/** Keys of which is known what was last read. */
const READ = 10000;

/** Errors of servers that are about to be replaced, or have just been, or that nobody follows for a moment. */
const PASSING = /^(READONLY|LOADING|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|UNBLOCKED)\b/;

function needed(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: the pod has the files of a SessionPolicy without its variables`);
  }
  return value;
}

/** It is tried again without end; a line every half minute is enough. */
function reporter() {
  let reported = 0;
  return (error) => {
    if (Date.now() - reported > 30000) {
      reported = Date.now();
      console.error(`session-operator: the session store cannot be used: ${error.message}`);
    }
  };
}

const digest = (value) => (value === null ? null : createHash('sha256').update(value).digest('base64'));

/** What was last read of keys, as digests; the oldest are forgotten. */
class LastRead {
  constructor() {
    this.digests = new Map();
  }

  note(key, value) {
    this.digests.delete(key);
    this.digests.set(key, digest(value));
    if (this.digests.size > READ) {
      this.digests.delete(this.digests.keys().next().value);
    }
  }

  /** `undefined` if it is not known. */
  of(key) {
    return this.digests.get(key);
  }
}

function redisClient() {
  const { env } = process;
  const host = needed('SESSION_OPERATOR_HOST');
  const socket = { host, port: Number(needed('SESSION_OPERATOR_PORT')), connectTimeout: TIMEOUT };
  if (env.SESSION_OPERATOR_TLS === 'true') {
    socket.tls = true;
    if (env.SESSION_OPERATOR_CA_FILE) {
      socket.ca = fs.readFileSync(env.SESSION_OPERATOR_CA_FILE);
    }
  }
  const options = {
    username: env.SESSION_OPERATOR_USERNAME || undefined,
    password: env.SESSION_OPERATOR_PASSWORD || undefined,
    socket: { ...socket, reconnectStrategy: (retries) => Math.min(50 * 2 ** Math.min(retries, 6), 2000) },
    // While the store is away requests wait for it no longer than this.
    commandOptions: { timeout: TIMEOUT },
  };
  const { createClient, createCluster } = require('@redis/client');
  if (env.SESSION_OPERATOR_CLUSTER === 'true') {
    return createCluster({ rootNodes: [{ socket }], defaults: options });
  }
  return createClient(options);
}

/** Another request has written the session, or ended it, while this one could not write. */
class Superseded extends Error {
  constructor() {
    super('the session was changed by another request while the store was away: what this request changed in it is dropped');
  }
}

/**
 * The commands of a client that connect-redis uses, so that each has an answer or an error in time. The client itself waits without
 * end for the answer to what it has sent: to a server that was lost with its node, for minutes.
 */
function patient(redis) {
  const { ErrorReply } = require('@redis/client');
  const away = reporter();
  const answered = async (command) => {
    let timer;
    const silence = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${TIMEOUT} ms`)), TIMEOUT);
    });
    try {
      return await Promise.race([command, silence]);
    } catch (error) {
      // Only one that is ready: the others connect already. A client of a cluster sees to its connections itself.
      if (!(error instanceof ErrorReply) && redis.isReady && typeof redis.unref === 'function') {
        redis.destroy();
        redis.connect().catch(away);
      }
      throw error;
    } finally {
      clearTimeout(timer);
      command.catch(() => {});
    }
  };
  const once = (name) => (...words) => answered(redis[name](...words));
  const again = async (attempt) => {
    const until = Date.now() + PATIENCE;
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        const passes = !(error instanceof Superseded) && (!(error instanceof ErrorReply) || PASSING.test(error.message));
        if (!passes || Date.now() > until) {
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
      }
    }
  };
  const read = new LastRead();
  const get = async (key) => {
    const value = await answered(redis.get(key));
    read.note(key, value);
    return value;
  };
  // The user of a request that could not write has often gone on by then, or logged out: what came after it stays.
  const set = (key, value, ...options) => {
    const before = read.of(key);
    let late = false;
    return again(async () => {
      if (late && before !== undefined) {
        const present = digest(await answered(redis.get(key)));
        if (present === digest(value)) {
          return 'OK';
        }
        if (present !== before) {
          throw new Superseded();
        }
      }
      late = true;
      const done = await answered(redis.set(key, value, ...options));
      read.note(key, value);
      return done;
    });
  };
  const commands = {
    get,
    set,
    mGet: once('mGet'),
    expire: once('expire'),
    del: (...words) => again(() => answered(redis.del(...words))),
  };
  return new Proxy(redis, {
    get(client, name) {
      const own = client[name];
      return commands[name] || (typeof own === 'function' ? own.bind(client) : own);
    },
  });
}

/** connect-redis extends the express-session of the application, which is not to be found from this folder. */
function redisClass(session) {
  const load = Module._load;
  Module._load = function (request) {
    return request === 'express-session' ? session : load.apply(this, arguments);
  };
  try {
    return require('connect-redis').RedisStore;
  } finally {
    Module._load = load;
  }
}

function redisStore(session, prefix, seconds) {
  const redis = redisClient();
  redis.on('error', reporter());
  // An application that closes its server and waits for its process to end must not wait for this connection. Only one that is
  // ready takes it.
  if (typeof redis.unref === 'function') {
    redis.on('ready', () => redis.unref());
  }
  redis.connect().catch((error) => console.error(`session-operator: the session store cannot be reached: ${error.message}`));
  const RedisStore = redisClass(session);
  return new RedisStore({ client: patient(redis), prefix, ...(seconds ? { ttl: () => seconds } : {}) });
}

function memcachedStore(session, prefix, seconds) {
  const { Client } = require('./memcached.cjs');
  const MemcachedStore = require('connect-memcached')(session);
  const client = new Client({
    host: needed('SESSION_OPERATOR_HOST'),
    port: Number(needed('SESSION_OPERATOR_PORT')),
    timeout: TIMEOUT,
    report: reporter(),
  });
  return new MemcachedStore({ client, prefix, ...(seconds ? { ttl: seconds } : {}) });
}

let shared;

/** One store for all uses of express-session in this process. */
exports.store = (session) => {
  if (!shared) {
    const make = process.env.SESSION_OPERATOR_PROTOCOL === 'memcached' ? memcachedStore : redisStore;
    const prefix = `${needed('SESSION_OPERATOR_KEY_PREFIX')}:sess:`;
    // Without a life that the policy names, that of the cookie counts.
    shared = make(session, prefix, Number(process.env.SESSION_OPERATOR_TTL_SECONDS || 0));
  }
  return shared;
};
