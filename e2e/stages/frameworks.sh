# shellcheck shell=bash
# frameworks: presets at work on real servers in sandboxes of this host, with a real store, and the drill's page in a browser;
# no cluster.

# Debian packages, as PROGRAM-OR-FILE:PACKAGE; a package is installed only if its file is missing.
framework_packages="bwrap:bubblewrap redis-server:redis-server redis-cli:redis-tools memcached:memcached php:php8.2-cli \
/usr/lib/php/20220829/redis.so:php8.2-redis /usr/lib/php/20220829/memcached.so:php8.2-memcached php-fpm8.2:php8.2-fpm /usr/lib/apache2/modules/libphp8.2.so:libapache2-mod-php8.2 \
/usr/share/tomcat10/bin/catalina.sh:tomcat10-common chromium-headless-shell:chromium-headless-shell"

# What agents/build needs for each preset.
agents_packages="mvn:maven javac:openjdk-17-jdk-headless pip3:python3-pip node:nodejs npm:npm"

# install_missing PACKAGES…
install_missing() {
    local entry wanted=()
    for entry; do
        [ -e "${entry%:*}" ] || command -v "${entry%:*}" >/dev/null || wanted+=("${entry##*:}")
    done
    ((${#wanted[@]})) || return 0
    echo "--- installing ${wanted[*]}"
    apt-get update -qq
    # What comes with a service must not start it.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
}

frameworks() {
    # shellcheck disable=SC2086
    install_missing $framework_packages $agents_packages
    agents/build "$target_folder/agents/files"
    cargo build --locked --workspace --bins --test frameworks --test page
    FRAMEWORK_TEST_FILES=$(realpath "$target_folder/agents/files")
    FRAMEWORK_TEST_PROGRAM=$(realpath "$target_folder/debug/session-agents")
    FRAMEWORK_TEST_PACKAGES=$(realpath "$target_folder")/framework-packages
    mkdir -p "$FRAMEWORK_TEST_PACKAGES"
    export FRAMEWORK_TEST_FILES FRAMEWORK_TEST_PROGRAM FRAMEWORK_TEST_PACKAGES
    cargo test --locked --workspace --test page
    cargo test --locked --workspace --test frameworks -- "$@"
}
