# Which Node.js is it, and is there an express-session that is loaded as a package?

node=$(command -v node || command -v nodejs || first /usr/local/bin/node /usr/bin/node)
if [ -z "$node" ]; then
  missing 'the image has no node in its PATH' 'set spec.client.containers to the container that runs Node.js, or put node into PATH of the container'
fi

# What the image puts into NODE_OPTIONS has no place here.
version=$(NODE_OPTIONS='' "$node" --version)
case $version in
v[0-9].* | v1[0-7].* | v18.[0-9].* | v18.1[0-8].*)
  missing "the image has Node.js $version, and the client for the store needs 18.19" 'use an image with Node.js 18.19 or newer' ;;
esac

session=$(NODE_OPTIONS='' "$node" -p 'require(require.resolve("express-session/package.json", {paths: [process.cwd()]})).version' 2>/dev/null)
if [ -z "$session" ]; then
  for folder in /app /srv /usr/src /opt /home /var/www; do
    if [ -z "$session" ] && [ -d "$folder" ]; then
      package=$(find "$folder" -maxdepth 6 -path '*/node_modules/express-session/package.json' 2>/dev/null | sed -n 1p)
      session=${package:+$(sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' "$package")}
    fi
  done
fi
if [ -z "$session" ]; then
  missing "there is no package express-session for an application under $PWD" \
    'set workingDir of the container to where node_modules is; if the application is bundled, leave express-session out of the bundle (external)'
fi

fact node "$version"
fact expressSession "$session"
variable NODE_OPTIONS
passed
