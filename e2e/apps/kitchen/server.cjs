'use strict';
const express = require('express');
const session = require('express-session');
const kitchen = require('./kitchen.cjs');

const server = kitchen(express, session).listen(Number(process.env.PORT || 8080), process.env.ADDRESS || '0.0.0.0');
// Requests in flight are answered.
process.on('SIGTERM', () => server.close());
