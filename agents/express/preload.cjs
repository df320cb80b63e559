'use strict';
// Loaded before the application (NODE_OPTIONS --require). When express-session is loaded, by require or by import, it is put
// behind a function that adds a store where the application names none. Nothing else is touched, and processes that do not
// use express-session do not notice.

const Module = require('node:module');

const ENTRY = /[\\/]express-session[\\/]index\.js$/;

// An import takes the exports of a CommonJS module as soon as its file has been run: later, by the cache, would be too late.
const run = Module._extensions['.js'];
Module._extensions['.js'] = function (module, filename) {
  run.apply(this, arguments);
  if (ENTRY.test(filename) && typeof module.exports === 'function' && module.exports.MemoryStore) {
    module.exports = withStore(module.exports);
  }
};

function withStore(session) {
  const { store } = require('./store.cjs');
  return new Proxy(session, {
    apply(target, self, [options, ...rest]) {
      const own = options && options.store;
      // A MemoryStore that is named is the same as none.
      if (own && own.constructor !== session.MemoryStore) {
        return Reflect.apply(target, self, [options, ...rest]);
      }
      return Reflect.apply(target, self, [{ ...options, store: store(session) }, ...rest]);
    },
  });
}
