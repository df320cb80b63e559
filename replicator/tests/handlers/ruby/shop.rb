# A shop with Ruby's session handlers: the first argument chooses one.
require "rack"
require "webrick"

PORT, REDIS, MEMCACHED = %w[PORT REDIS_PORT MEMCACHED_PORT].map { |name| Integer(ENV.fetch(name)) }
LIFE = 1800

# What every shop does; `renew` asks for a new id at login, so that one from before is worth nothing.
def act(path, query, session, renew:)
  case path
  when "/login"
    renew.call
    session["user"] = query["user"]
  when "/add"
    session["items"] = session["items"].to_i + 1
  when "/logout"
    session.destroy
    return " 0"
  end
  "#{session["user"]} #{session["items"].to_i}"
end

# An application on rack alone.
def rack(middleware, **options)
  shop = lambda do |env|
    request = Rack::Request.new(env)
    renew = -> { request.session_options[:renew] = true }
    body = act(request.path, request.GET, request.session, renew: renew)
    [200, { "Content-Type" => "text/plain" }, [body]]
  end
  Rack::Builder.app do
    use middleware, expire_after: LIFE, **options
    run shop
  end
end

# An application on Rails.
def rails
  require "action_controller/railtie"
  shop = Class.new(Rails::Application) do
    config.root = __dir__
    config.load_defaults 6.1
    config.eager_load = false
    config.secret_key_base = "a" * 64
    config.logger = Logger.new($stderr)
    config.log_level = :warn
    config.hosts.clear
    # There are no forms that could carry a token.
    config.action_controller.default_protect_from_forgery = false
    yield config
  end
  controller = Class.new(ActionController::Base) do
    define_method(:act) do
      renew = -> { request.session_options[:renew] = true }
      render plain: Object.send(:act, request.path, request.query_parameters, session, renew: renew)
    end
  end
  Object.const_set(:ShopController, controller)
  shop.initialize!
  shop.routes.draw { match "*path", to: "shop#act", via: %i[get post] }
  shop
end

app =
  case ARGV.fetch(0)
  when "redis-rack"
    require "rack/session/redis"
    rack Rack::Session::Redis, redis_server: "redis://127.0.0.1:#{REDIS}/0/rack"
  when "dalli"
    require "rack/session/dalli"
    rack Rack::Session::Dalli, memcache_server: "127.0.0.1:#{MEMCACHED}"
  when "rails, redis_store"
    rails do |config|
      require "redis-actionpack"
      servers = ["redis://127.0.0.1:#{REDIS}/0/rails"]
      config.session_store :redis_store, servers: servers, expire_after: LIFE
    end
  when "rails, redis_cache_store"
    rails do |config|
      config.cache_store = :redis_cache_store, { url: "redis://127.0.0.1:#{REDIS}/0" }
      config.session_store :cache_store, expire_after: LIFE
    end
  else
    abort "there is no handler named #{ARGV[0]}"
  end

server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: PORT, AccessLog: [])
server.mount "/", Rack::Handler::WEBrick, app
server.start
