// The same as an ES module.
import express from 'express';
import session from 'express-session';
import kitchen from './kitchen.cjs';

const server = kitchen(express, session).listen(Number(process.env.PORT || 8080), process.env.ADDRESS || '0.0.0.0');
process.on('SIGTERM', () => server.close());
