# Which version of the extension do the PHPs of this image have, where do they read settings, and what overrides ours?

# What the extension is built with, and how a package of it is called elsewhere.
case $extension in
redis) built_with= package=php-pecl-redis6 ;;
*) built_with='apt-get update && apt-get install -y libmemcached-dev zlib1g-dev && ' package=php-pecl-memcached ;;
esac

remedy() {
  if command -v docker-php-ext-enable >/dev/null 2>&1; then
    if ! command -v apt-get >/dev/null 2>&1; then
      built_with=${built_with:+'apk add libmemcached-dev zlib-dev $PHPIZE_DEPS && '}
    fi
    echo "add to the image: RUN ${built_with}pecl install $extension && docker-php-ext-enable $extension"
  elif command -v apk >/dev/null 2>&1; then
    echo "add to the image: RUN apk add the package php*-pecl-$extension that belongs to its PHP"
  elif command -v apt-get >/dev/null 2>&1; then
    echo "add to the image: RUN apt-get update && apt-get install -y php-$extension"
  else
    echo "add to the image: the $extension extension (pecl install $extension, or the package $package) and an ini file with extension=$extension"
  fi
}

# enables FOLDER: whether an ini file in it loads the extension.
enables() {
  grep -lE '^[[:space:]]*extension[[:space:]]*=[[:space:]]*"?([^;"]*/)?'"$extension"'(\.so)?"?[[:space:]]*$' "$1"/*.ini >/dev/null 2>&1
}

# from_info NAME: the local value in the output of `php-fpm -i`.
from_info() {
  value=$(printf '%s\n' "$info" | sed -n "s/^$1 => \([^=]*\).*/\1/p" | sed -n '1s/ *$//p')
  [ "$value" = 'no value' ] || printf '%s' "$value"
}

# What the server reads counts, not where the command line is found; /usr/sbin is missing in many a PATH.
PATH=$PATH:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin
cli=$(command -v php || first /usr/bin/php[0-9]* /opt/*/bin/php)
fpm=$(command -v php-fpm || first /usr/sbin/php-fpm[0-9]* /usr/bin/php-fpm[0-9]* /opt/*/sbin/php-fpm)
module=$(first /usr/lib/apache2/modules/libphp*.so /usr/lib*/httpd/modules/libphp*.so /usr/local/apache2/modules/libphp*.so)

if [ -n "$cli" ]; then
  info=$("$cli" -d display_startup_errors=0 -d display_errors=0 -i 2>/dev/null)
elif [ -n "$fpm" ]; then
  info=$("$fpm" -d display_startup_errors=0 -d display_errors=0 -i 2>/dev/null)
elif [ -n "$module" ]; then
  info=
else
  missing 'the image has no PHP: neither php nor php-fpm nor a module of Apache' \
    'set spec.client.containers to the container that runs PHP, or spec.client.framework to what this one runs'
fi

if [ -n "$info" ]; then
  if [ "$extension" = redis ]; then
    version=$(from_info 'Redis Version')
  else
    # The name of the extension heads its part of the output.
    info_of_all=$info
    info=$(printf '%s\n' "$info_of_all" | sed -n "/^$extension support => /,/^Directive => /p")
    version=$(from_info Version)
    if [ -n "$version" ] && [ "$(from_info 'Session support')" != yes ]; then
      missing "the $extension extension of this image was built without sessions" "use the $extension extension of PECL or of the distribution"
    fi
    info=$info_of_all
  fi
  [ -n "$version" ] || missing "PHP in this image has no $extension extension" "$(remedy)"
  scanned=$(from_info 'Scan this dir for additional .ini files')
  # Debian has one folder of settings per server: what the command line loads says nothing of the others.
  case $scanned in
  */cli/conf.d | */fpm/conf.d)
    for server in apache2 fpm cgi; do
      folder=${scanned%/*/conf.d}/$server/conf.d
      if [ -d "$folder" ] && ! enables "$folder"; then
        missing "the $extension extension is not enabled for $server: no file in $folder loads it" \
          "add to the image: RUN phpenmod -s $server $extension"
      fi
    done
    ;;
  esac
  fact autoPrepend "$(from_info auto_prepend_file)"
  fact openBasedir "$(from_info open_basedir)"
else
  # Only a module of Apache, which cannot be asked without the server's own configuration.
  for folder in /etc/php/*/apache2/conf.d /usr/local/etc/php/conf.d /etc/php.d /etc/php[0-9]*/conf.d; do
    if [ -d "$folder" ] && enables "$folder"; then
      found=$folder
    fi
  done
  [ -n "${found:-}" ] || missing "Apache has PHP as a module, and no ini file of the image loads the $extension extension" "$(remedy)"
  version=
fi

# A pool of php-fpm outranks every ini file.
for pool in /etc/php-fpm.d/*.conf /etc/php/*/fpm/pool.d/*.conf /etc/php[0-9]*/php-fpm.d/*.conf /usr/local/etc/php-fpm.d/*.conf; do
  if grep -qE '^[[:space:]]*php_(admin_)?value\[session\.save_(handler|path)\]' "$pool" 2>/dev/null; then
    missing "$pool sets session.save_handler or session.save_path, which outranks every ini file" \
      "remove both lines from $pool in the image"
  fi
done

fact "$extension" "$version"
fact fpm "${fpm:+yes}"
variable PHP_INI_SCAN_DIR
variable SSL_CERT_FILE
passed
