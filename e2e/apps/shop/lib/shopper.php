<?php
declare(strict_types=1);

require_once __DIR__ . '/catalogue.php';

/**
 * Who is shopping: a view of the PHP session, which is the only place where the shop keeps anything.
 *
 * The session handler is PHP's own, with the settings of the distribution.
 */
final class Shopper
{
    /** @throws RuntimeException when PHP cannot read the session: who is there is not known, which is not the same as nobody. */
    public function __construct()
    {
        if (!session_start()) {
            throw new RuntimeException('no session');
        }
    }

    /** Name of the user who is logged in, or null. */
    public function name(): ?string
    {
        return $_SESSION['user'] ?? null;
    }

    /** Seconds since the login, or null. */
    public function sessionAge(): ?int
    {
        return isset($_SESSION['since']) ? time() - $_SESSION['since'] : null;
    }

    /** Logs a user in. The rule for passwords: secret-NAME. */
    public function logIn(string $name, string $password): bool
    {
        if (!preg_match('/^[a-z0-9][a-z0-9._-]{0,39}$/', $name) || !hash_equals("secret-$name", $password)) {
            return false;
        }
        // A new id at login, so that an id which somebody planted before is worth nothing.
        session_regenerate_id(true);
        $_SESSION = ['user' => $name, 'since' => time(), 'basket' => []];
        return true;
    }

    public function logOut(): void
    {
        $_SESSION = [];
        $cookie = session_get_cookie_params();
        setcookie(session_name(), '', [
            'expires' => 1,
            'path' => $cookie['path'],
            'domain' => $cookie['domain'],
            'secure' => $cookie['secure'],
            'httponly' => $cookie['httponly'],
        ]);
        session_destroy();
    }

    /** @return list<array{product: string, quantity: int, engraving: string}> */
    public function basket(): array
    {
        return $_SESSION['basket'] ?? [];
    }

    /** Adds a line to the basket; the same product with the same engraving adds to its line. */
    public function add(string $product, int $quantity, string $engraving): bool
    {
        $engraving = trim($engraving);
        if (!isset(CATALOGUE[$product]) || $quantity < 1 || $quantity > 99 || strlen($engraving) > ENGRAVING_LIMIT) {
            return false;
        }
        foreach ($_SESSION['basket'] as &$line) {
            if ($line['product'] === $product && $line['engraving'] === $engraving) {
                $line['quantity'] = min(99, $line['quantity'] + $quantity);
                return true;
            }
        }
        unset($line);
        $_SESSION['basket'][] = ['product' => $product, 'quantity' => $quantity, 'engraving' => $engraving];
        return true;
    }

    public function emptyBasket(): void
    {
        $_SESSION['basket'] = [];
    }

    /** Number of articles in the basket. */
    public function articles(): int
    {
        return array_sum(array_column($this->basket(), 'quantity'));
    }

    /** Total of the basket in cents. */
    public function total(): int
    {
        $total = 0;
        foreach ($this->basket() as $line) {
            $total += CATALOGUE[$line['product']]['price'] * $line['quantity'];
        }
        return $total;
    }
}
