<?php
declare(strict_types=1);

require_once __DIR__ . '/shopper.php';

function escape(string $text): string
{
    return htmlspecialchars($text, ENT_QUOTES | ENT_SUBSTITUTE, 'UTF-8');
}

/** Sends a whole page; $body is HTML. */
function page(string $title, string $body, Shopper $shopper, int $status = 200): void
{
    http_response_code($status);
    header('Content-Type: text/html; charset=utf-8');
    header('Cache-Control: no-store');
    $title = escape($title);
    $pod = escape(gethostname());
    $count = $shopper->articles();
    if ($shopper->name() !== null) {
        $name = escape($shopper->name());
        $account = <<<HTML
            <span class="who">$name</span>
            <a href="/basket">Basket <b class="count">$count</b></a>
            <form method="post" action="/logout"><button class="plain">Log out</button></form>
            HTML;
    } else {
        $account = '<a href="/login">Log in</a>';
    }
    echo <<<HTML
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>$title · Corner Shop</title>
        <link rel="stylesheet" href="/style.css">
        </head>
        <body>
        <header><a class="brand" href="/">Corner Shop</a><nav>$account</nav></header>
        <main><h1>$title</h1>$body</main>
        <footer>Served by <code>$pod</code></footer>
        </body>
        </html>

        HTML;
}

function cataloguePage(Shopper $shopper): void
{
    $cards = '';
    $limit = ENGRAVING_LIMIT;
    foreach (CATALOGUE as $id => $product) {
        $name = escape($product['name']);
        $about = escape($product['about']);
        $price = price($product['price']);
        $cards .= <<<HTML
            <li class="card">
            <h2>$name</h2><p>$about</p><p class="price">$price</p>
            <form method="post" action="/basket">
            <input type="hidden" name="product" value="$id">
            <label>Engraving <input name="engraving" maxlength="$limit" placeholder="none"></label>
            <label>Pieces <input type="number" name="quantity" value="1" min="1" max="99"></label>
            <button>Add to basket</button>
            </form>
            </li>
            HTML;
    }
    page('Good things for slow days', "<ul class=\"cards\">$cards</ul>", $shopper);
}

function loginPage(Shopper $shopper, string $message = '', int $status = 200): void
{
    $note = $message === '' ? '' : '<p class="note" role="alert">' . escape($message) . '</p>';
    page('Log in', <<<HTML
        $note
        <form method="post" action="/login" class="stack">
        <label>Name <input name="user" autocomplete="username" required autofocus></label>
        <label>Password <input type="password" name="password" autocomplete="current-password" required></label>
        <button>Log in</button>
        </form>
        <p class="hint">Any name will do (small letters, digits, dot, dash); the password of <code>ada</code> is <code>secret-ada</code>.</p>
        HTML, $shopper, $status);
}

function basketPage(Shopper $shopper): void
{
    $rows = '';
    foreach ($shopper->basket() as $line) {
        $product = CATALOGUE[$line['product']];
        $name = escape($product['name']);
        $engraving = escape($line['engraving']);
        $sum = price($product['price'] * $line['quantity']);
        $rows .= "<tr><td>$name</td><td>$engraving</td><td>{$line['quantity']}</td><td>$sum</td></tr>";
    }
    if ($rows === '') {
        page('Your basket', '<p>Nothing in it yet. <a href="/">Have a look around</a>.</p>', $shopper);
        return;
    }
    $total = price($shopper->total());
    page('Your basket', <<<HTML
        <table>
        <thead><tr><th>Article</th><th>Engraving</th><th>Pieces</th><th>Price</th></tr></thead>
        <tbody>$rows</tbody>
        <tfoot><tr><td colspan="3">Total</td><td>$total</td></tr></tfoot>
        </table>
        <form method="post" action="/checkout"><button>Order for $total</button></form>
        HTML, $shopper);
}

function thanksPage(Shopper $shopper, int $paid): void
{
    $total = price($paid);
    page('Thank you', "<p>Your order of $total is on its way. <a href=\"/\">Back to the shop</a></p>", $shopper);
}

/** Who the shop takes the visitor for, and where the answer comes from. */
function whoami(Shopper $shopper): void
{
    header('Content-Type: application/json');
    header('Cache-Control: no-store');
    echo json_encode([
        'pod' => gethostname(),
        'user' => $shopper->name(),
        'basket' => $shopper->basket(),
        'total' => $shopper->total(),
        'sessionAge' => $shopper->sessionAge(),
    ], JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR), "\n";
}
