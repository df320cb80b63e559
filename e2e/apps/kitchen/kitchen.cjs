'use strict';
// A kitchen where guests note what they order. The session of express-session is the only place where it keeps anything.

const os = require('node:os');

const DISHES = { soup: 'Onion soup', pie: 'Leek pie', trout: 'Trout', plum: 'Plum cake' };

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const page = (guest, orders, note) => `<!doctype html>
<html lang="en"><head><title>Kitchen</title></head><body><h1>Kitchen</h1><p role="alert">${escape(note)}</p>
${guest
    ? `<p>${escape(guest)} has ordered:</p>
<ul>${orders.map(({ dish, wish }) => `<li>${escape(DISHES[dish])} ${escape(wish)}</li>`).join('')}</ul>
<form method="post" action="/orders"><select name="dish">${Object.entries(DISHES)
      .map(([id, name]) => `<option value="${id}">${name}</option>`)
      .join('')}</select> <label>Wish <input name="wish" maxlength="40"></label> <button>Order</button></form>
<form method="post" action="/logout"><button>Log out</button></form>`
    : `<form method="post" action="/login"><label>Name <input name="user" required></label>
<label>Password <input type="password" name="password" required></label> <button>Log in</button></form>
<p>Any name will do; the password of <code>ada</code> is <code>secret-ada</code>.</p>`}
<footer>Served by <code>${escape(os.hostname())}</code></footer></body></html>
`;

/** The application, with the express and express-session of the caller. */
module.exports = (express, session) => {
  const app = express();
  app.disable('x-powered-by');
  app.use((request, response, next) => {
    // Common practice behind a balancer: says which instance answered.
    response.set({ 'X-Served-By': os.hostname(), 'Cache-Control': 'no-store' });
    next();
  });
  app.get('/healthz', (request, response) => response.type('text').send('ok\n'));
  app.use(express.urlencoded({ extended: false }));
  app.use(session({ secret: 'of this kitchen', resave: false, saveUninitialized: false }));

  const show = (request, response, status = 200, note = '') =>
    response.status(status).send(page(request.session.guest, request.session.orders, note));

  app.get('/', (request, response) => show(request, response));
  app.get('/whoami', (request, response) => {
    const { guest = null, orders = [] } = request.session;
    response.json({ pod: os.hostname(), user: guest, orders });
  });
  app.post('/login', (request, response, next) => {
    const { user = '', password = '' } = request.body;
    if (!/^[a-z0-9][a-z0-9._-]{0,39}$/.test(user) || password !== `secret-${user}`) {
      show(request, response, 401, 'Name and password do not fit together.');
      return;
    }
    // A new id at login, so that an id which somebody planted before is worth nothing.
    request.session.regenerate((error) => {
      if (error) {
        next(error);
        return;
      }
      Object.assign(request.session, { guest: user, orders: [] });
      response.redirect(303, '/');
    });
  });
  app.post('/orders', (request, response) => {
    const { dish, wish = '' } = request.body;
    if (!request.session.guest) {
      show(request, response, 401, 'Please log in first.');
    } else if (!Object.hasOwn(DISHES, dish) || wish.length > 40) {
      show(request, response, 422, 'No such dish, or too long a wish.');
    } else {
      request.session.orders.push({ dish, wish });
      response.redirect(303, '/');
    }
  });
  app.post('/logout', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.redirect(303, '/')));
  });
  return app;
};
