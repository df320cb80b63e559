// A shop on Express with express-session: shop.js STORE, which is one of STORES.
// The packages are in another folder, which HANDLERS names.
"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");

const load = createRequire(path.join(process.env.HANDLERS, "package.json"));
const express = load("express");
const session = load("express-session");

const port = Number(process.env.REDIS_PORT);
const nodeRedis = (name) => {
  const client = load(name).createClient({ url: `redis://127.0.0.1:${port}` });
  client.connect();
  return client;
};
const ioredis = (name) => {
  const { Redis } = load(name);
  return new Redis(port, "127.0.0.1");
};

const STORES = {
  "connect-redis 9, node-redis 6": () => new (load("connect-redis").RedisStore)({ client: nodeRedis("redis") }),
  "connect-redis 8, node-redis 5": () => new (load("connect-redis-8").RedisStore)({ client: nodeRedis("redis-5") }),
  "connect-redis 8, ioredis 6": () => new (load("connect-redis-8").RedisStore)({ client: ioredis("ioredis") }),
  "connect-redis 7, node-redis 4": () => new (load("connect-redis-7").default)({ client: nodeRedis("redis-4") }),
  "connect-redis 7, ioredis 5": () => new (load("connect-redis-7").default)({ client: ioredis("ioredis-5") }),
  "connect-memcached 3": () =>
    new (load("connect-memcached")(session))({ hosts: [`127.0.0.1:${process.env.MEMCACHED_PORT}`] }),
};

const app = express();
app.use(
  session({ store: STORES[process.argv[2]](), secret: "the same on every replica", resave: false, saveUninitialized: false }),
);

const answer = (request, response) =>
  response.type("text/plain").send(`${request.session?.user ?? ""} ${request.session?.items ?? 0}`);

app.post("/login", (request, response, next) => {
  const { items } = request.session;
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.items = items;
    request.session.user = request.query.user;
    answer(request, response);
  });
});
app.post("/add", (request, response) => {
  request.session.items = (request.session.items ?? 0) + 1;
  answer(request, response);
});
app.post("/logout", (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : answer(request, response)));
});
app.get("/state", answer);
app.listen(Number(process.env.PORT), "127.0.0.1");
