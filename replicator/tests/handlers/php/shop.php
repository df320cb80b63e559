<?php
// A shop with PHP's own sessions: the handler is chosen by the ini settings on the command line.
session_start();
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/login':
        session_regenerate_id(true);
        $_SESSION['user'] = $_GET['user'];
        break;
    case '/add':
        $_SESSION['items'] = ($_SESSION['items'] ?? 0) + 1;
        break;
    case '/logout':
        session_unset();
        session_destroy();
        break;
}
header('Content-Type: text/plain');
echo ($_SESSION['user'] ?? ''), ' ', ($_SESSION['items'] ?? 0);
