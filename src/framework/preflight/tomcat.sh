# Which Tomcat is it, where are its libraries and its configuration, and which hosts does it serve?

home=${CATALINA_HOME:-}
if [ -z "$home" ]; then
  home=$(first /usr/local/tomcat/lib/catalina.jar /opt/tomcat/lib/catalina.jar /opt/bitnami/tomcat/lib/catalina.jar \
    /usr/share/tomcat*/lib/catalina.jar)
  home=${home%/*/catalina.jar}
fi
[ -e "$home/lib/catalina.jar" ] || missing "the image has no Tomcat${home:+ under $home}" \
  'set spec.client.containers to the container that runs Tomcat, or CATALINA_HOME to where it lies; an application with an embedded Tomcat needs another framework, such as Spring'

# Debian keeps libraries and configuration apart, and nothing in the image says so.
base=${CATALINA_BASE:-}
if [ -z "$base" ]; then
  base=$home
  if [ ! -e "$base/conf/server.xml" ]; then
    base=$(first /var/lib/"${home##*/}"/conf/server.xml /var/lib/tomcat*/conf/server.xml)
    base=${base%/conf/server.xml}
  fi
fi
[ -e "$base/conf/server.xml" ] || missing "there is no conf/server.xml under ${base:-any folder that is known}" \
  'set CATALINA_BASE of the container to the folder that has conf/server.xml'

java=$(command -v "${JAVA_HOME:+$JAVA_HOME/bin/java}" java | sed -n 1p)
[ -n "$java" ] || java=$(first /usr/bin/java /opt/java/*/bin/java /usr/local/openjdk-*/bin/java /usr/lib/jvm/*/bin/java)
[ -n "$java" ] || missing 'the image has no java' 'set JAVA_HOME of the container to where Java lies'
version=$("$java" -cp "$home/lib/catalina.jar:$home/bin/tomcat-juli.jar:$home/lib/tomcat-util-scan.jar" org.apache.catalina.util.ServerInfo 2>/dev/null |
  sed -n 's/^Server number: *//p')
case $version in
10.1.*) ;;
'') missing "the version of Tomcat under $home cannot be found out: $java gives no answer" 'use the official image of Tomcat 10.1' ;;
*) missing "the image has Tomcat ${version%.*}, and the session manager is made for Tomcat 10.1" 'use an image with Tomcat 10.1' ;;
esac

# attribute ELEMENT NAME: the values, one on each line, wherever the line breaks are. Comments do not count.
attribute() {
  tr '\n\r\t' '   ' <"$base/conf/server.xml" | sed 's/<!--/\n&/g; s/-->/&\n/g' | grep -v '^<!--' | tr -d '\n' | sed 's/</\n</g' |
    sed -n "s/^<$1[[:space:]]\(.*[[:space:]]\)\{0,1\}$2=[\"']\([^\"']*\)[\"'].*/\2/p"
}

engine=$(attribute Engine name | sed -n 1p)
hosts=
for host in $(attribute Host name); do
  folder=conf/${engine:-Catalina}/$host
  if [ -e "$base/$folder/context.xml.default" ]; then
    missing "$base/$folder/context.xml.default exists already" \
      'move what it says to conf/context.xml, which is read before it, or to the application'"'"'s META-INF/context.xml, which is read after it'
  fi
  hosts="$hosts${hosts:+ }$folder"
done
[ -n "$hosts" ] || missing "$base/conf/server.xml names no Host" 'use a server.xml with Engine and Host in it'

fact base "$base"
fact hosts "$hosts"
fact version "$version"
passed
