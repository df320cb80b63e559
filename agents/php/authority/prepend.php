<?php
// Before 6.0 the session handler of phpredis takes no authority of its own and asks OpenSSL's defaults, which
// SSL_CERT_FILE extends. php-fpm has that variable, but clears the environment of its workers (clear_env).
if (getenv('SSL_CERT_FILE') === false) {
    putenv('SSL_CERT_FILE=/session-operator/binding/ca.crt');
}
