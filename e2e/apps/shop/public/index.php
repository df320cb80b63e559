<?php
declare(strict_types=1);

require_once __DIR__ . '/../lib/pages.php';

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/';
$method = $_SERVER['REQUEST_METHOD'];

// Common practice behind a balancer: says which instance answered.
header('X-Served-By: ' . gethostname());

if ($path === '/healthz') {
    // No session here: a probe every second must not leave a session file each time.
    header('Content-Type: text/plain');
    echo "ok\n";
    return;
}

/** A field of the form that was posted; anything that is not text counts as empty. */
function field(string $name): string
{
    $value = $_POST[$name] ?? '';
    return is_string($value) ? $value : '';
}

/** After a post: the browser fetches a page, so that a reload does not post again. */
function seeOther(string $path): void
{
    header("Location: $path", true, 303);
}

try {
    $shopper = new Shopper();
} catch (RuntimeException) {
    http_response_code(503);
    header('Content-Type: text/plain');
    header('Retry-After: 1');
    echo "The shop cannot find out who you are. Please try again in a moment.\n";
    return;
}

switch ("$method $path") {
    case 'GET /':
        cataloguePage($shopper);
        break;
    case 'GET /login':
        loginPage($shopper);
        break;
    case 'POST /login':
        if ($shopper->logIn(field('user'), field('password'))) {
            seeOther('/');
        } else {
            loginPage($shopper, 'Name and password do not fit together.', 401);
        }
        break;
    case 'POST /logout':
        $shopper->logOut();
        seeOther('/');
        break;
    // The API of the same shop: it knows a shopper by the same session, and answers with JSON only.
    case 'GET /api/basket':
    case 'GET /whoami':
        whoami($shopper);
        break;
    case 'GET /basket':
    case 'POST /basket':
    case 'POST /checkout':
        if ($shopper->name() === null) {
            loginPage($shopper, 'Please log in first.', 401);
        } elseif ($method === 'GET') {
            basketPage($shopper);
        } elseif ($path === '/checkout') {
            $paid = $shopper->total();
            $shopper->emptyBasket();
            thanksPage($shopper, $paid);
        } elseif ($shopper->add(field('product'), (int) field('quantity'), field('engraving'))) {
            seeOther('/basket');
        } else {
            page('Not in the catalogue', '<p>No such article, number of pieces or engraving. <a href="/">Back</a></p>', $shopper, 422);
        }
        break;
    default:
        page('Not here', '<p>There is no such page. <a href="/">To the shop</a></p>', $shopper, 404);
}
