//! The table of commands, and the names of those that are known but not spoken.

use super::rewrite::Rewrite;
use super::{ALL_KEYS, Flags, Handler, Keys, ONE_KEY, Spec};
use super::{cluster, connection, hashes, introspection, keys, pubsub, script, server};
use super::{sets, sorted_sets, strings, transactions};

const READ: Flags = Flags {
    write: false,
    before_auth: false,
    outside_multi: false,
    runs_in_multi: false,
    while_subscribed: false,
};
const WRITE: Flags = Flags { write: true, ..READ };
/// Not part of a transaction: it touches keys of more than one group.
const ALONE: Flags = Flags {
    outside_multi: true,
    ..READ
};
const ALONE_WRITE: Flags = Flags {
    outside_multi: true,
    ..WRITE
};
const BEFORE_AUTH: Flags = Flags {
    before_auth: true,
    ..READ
};
const IN_MULTI: Flags = Flags {
    runs_in_multi: true,
    ..READ
};
const LISTEN: Flags = Flags {
    outside_multi: true,
    while_subscribed: true,
    ..READ
};

const TWO_KEYS: Keys = Keys::Range {
    first: 1,
    last: 2,
    step: 1,
};
const PAIRS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 2,
};

const fn spec(name: &'static str, arity: i64, keys: Keys, flags: Flags, handler: Handler) -> Spec {
    Spec {
        name,
        arity,
        keys,
        flags,
        rewrite: Rewrite::Keys,
        handler,
    }
}

const fn rewritten(spec: Spec, rewrite: Rewrite) -> Spec {
    Spec { rewrite, ..spec }
}

/// All commands, sorted by name.
pub static TABLE: [Spec; 99] = [
    spec("append", 3, ONE_KEY, WRITE, strings::append),
    spec("asking", 1, Keys::None, READ, cluster::accept),
    spec("auth", -2, Keys::None, BEFORE_AUTH, connection::auth),
    spec("client", -2, Keys::None, READ, connection::client),
    spec("cluster", -2, Keys::None, READ, cluster::cluster),
    spec("command", -1, Keys::None, READ, introspection::command),
    spec("config", -2, Keys::None, READ, server::config),
    spec("dbsize", 1, Keys::None, ALONE, keys::dbsize),
    spec("decr", 2, ONE_KEY, WRITE, strings::decr),
    spec("decrby", 3, ONE_KEY, WRITE, strings::decrby),
    spec("del", -2, ALL_KEYS, WRITE, keys::del),
    spec("delex", -2, ONE_KEY, WRITE, strings::delex),
    spec("delifeq", 3, ONE_KEY, WRITE, strings::delifeq),
    spec("discard", 1, Keys::None, IN_MULTI, transactions::discard),
    spec("echo", 2, Keys::None, READ, connection::echo),
    spec("eval", -3, Keys::Counted(2), WRITE, script::eval),
    spec("evalsha", -3, Keys::Counted(2), WRITE, script::evalsha),
    spec("exec", 1, Keys::None, IN_MULTI, transactions::exec),
    spec("exists", -2, ALL_KEYS, READ, keys::exists),
    spec("expire", -3, ONE_KEY, WRITE, keys::expire),
    spec("expireat", -3, ONE_KEY, WRITE, keys::expireat),
    spec("expiretime", 2, ONE_KEY, READ, keys::expiretime),
    spec("flushall", -1, Keys::None, ALONE_WRITE, server::refused),
    spec("flushdb", -1, Keys::None, ALONE_WRITE, server::refused),
    spec("get", 2, ONE_KEY, READ, strings::get),
    spec("getdel", 2, ONE_KEY, WRITE, strings::getdel),
    spec("getex", -2, ONE_KEY, WRITE, strings::getex),
    spec("getset", 3, ONE_KEY, WRITE, strings::getset),
    spec("hdel", -3, ONE_KEY, WRITE, hashes::hdel),
    spec("hello", -1, Keys::None, BEFORE_AUTH, connection::hello),
    spec("hexists", 3, ONE_KEY, READ, hashes::hexists),
    spec("hget", 3, ONE_KEY, READ, hashes::hget),
    spec("hgetall", 2, ONE_KEY, READ, hashes::hgetall),
    spec("hincrby", 4, ONE_KEY, WRITE, hashes::hincrby),
    spec("hincrbyfloat", 4, ONE_KEY, WRITE, hashes::hincrbyfloat),
    spec("hkeys", 2, ONE_KEY, READ, hashes::hkeys),
    spec("hlen", 2, ONE_KEY, READ, hashes::hlen),
    spec("hmget", -3, ONE_KEY, READ, hashes::hmget),
    spec("hmset", -4, ONE_KEY, WRITE, hashes::hmset),
    spec("hset", -4, ONE_KEY, WRITE, hashes::hset),
    spec("hsetnx", 4, ONE_KEY, WRITE, hashes::hsetnx),
    spec("hstrlen", 3, ONE_KEY, READ, hashes::hstrlen),
    spec("hvals", 2, ONE_KEY, READ, hashes::hvals),
    spec("incr", 2, ONE_KEY, WRITE, strings::incr),
    spec("incrby", 3, ONE_KEY, WRITE, strings::incrby),
    spec("incrbyfloat", 3, ONE_KEY, WRITE, strings::incrbyfloat),
    spec("info", -1, Keys::None, READ, server::info),
    rewritten(spec("keys", 2, Keys::None, ALONE, keys::keys), Rewrite::Pattern),
    spec("mget", -2, ALL_KEYS, READ, strings::mget),
    spec("mset", -3, PAIRS, WRITE, strings::mset),
    spec("multi", 1, Keys::None, IN_MULTI, transactions::multi),
    spec("persist", 2, ONE_KEY, WRITE, keys::persist),
    spec("pexpire", -3, ONE_KEY, WRITE, keys::pexpire),
    spec("pexpireat", -3, ONE_KEY, WRITE, keys::pexpireat),
    spec("pexpiretime", 2, ONE_KEY, READ, keys::pexpiretime),
    spec(
        "ping",
        -1,
        Keys::None,
        Flags {
            while_subscribed: true,
            ..READ
        },
        connection::ping,
    ),
    spec("psetex", 4, ONE_KEY, WRITE, strings::psetex),
    spec("psubscribe", -2, Keys::None, LISTEN, pubsub::psubscribe),
    spec("pttl", 2, ONE_KEY, READ, keys::pttl),
    spec("publish", 3, Keys::None, READ, pubsub::publish),
    spec("pubsub", -2, Keys::None, READ, pubsub::pubsub),
    spec("punsubscribe", -1, Keys::None, LISTEN, pubsub::punsubscribe),
    spec(
        "quit",
        -1,
        Keys::None,
        Flags {
            before_auth: true,
            while_subscribed: true,
            runs_in_multi: true,
            ..READ
        },
        connection::quit,
    ),
    spec("readonly", 1, Keys::None, READ, cluster::accept),
    spec("readwrite", 1, Keys::None, READ, cluster::accept),
    spec("rename", 3, TWO_KEYS, ALONE_WRITE, keys::rename),
    spec("renamenx", 3, TWO_KEYS, ALONE_WRITE, keys::renamenx),
    spec(
        "reset",
        1,
        Keys::None,
        Flags {
            before_auth: true,
            while_subscribed: true,
            runs_in_multi: true,
            ..READ
        },
        connection::reset,
    ),
    spec("role", 1, Keys::None, READ, server::role),
    spec("sadd", -3, ONE_KEY, WRITE, sets::sadd),
    rewritten(spec("scan", -2, Keys::None, ALONE, keys::scan), Rewrite::Match),
    spec("scard", 2, ONE_KEY, READ, sets::scard),
    spec("script", -2, Keys::None, READ, script::script),
    spec("select", 2, Keys::None, READ, connection::select),
    spec("set", -3, ONE_KEY, WRITE, strings::set),
    spec("setex", 4, ONE_KEY, WRITE, strings::setex),
    spec("setnx", 3, ONE_KEY, WRITE, strings::setnx),
    spec("sismember", 3, ONE_KEY, READ, sets::sismember),
    spec("smembers", 2, ONE_KEY, READ, sets::smembers),
    spec("smismember", -3, ONE_KEY, READ, sets::smismember),
    spec("srem", -3, ONE_KEY, WRITE, sets::srem),
    spec("strlen", 2, ONE_KEY, READ, strings::strlen),
    spec("subscribe", -2, Keys::None, LISTEN, pubsub::subscribe),
    spec("time", 1, Keys::None, READ, server::time),
    spec("touch", -2, ALL_KEYS, READ, keys::exists),
    spec("ttl", 2, ONE_KEY, READ, keys::ttl),
    spec("type", 2, ONE_KEY, READ, keys::type_of),
    spec("unlink", -2, ALL_KEYS, WRITE, keys::del),
    spec("unsubscribe", -1, Keys::None, LISTEN, pubsub::unsubscribe),
    spec("unwatch", 1, Keys::None, READ, transactions::unwatch),
    spec("wait", 3, Keys::None, READ, server::wait),
    spec("watch", -2, ALL_KEYS, IN_MULTI, transactions::watch),
    rewritten(
        spec("zadd", -4, ONE_KEY, WRITE, sorted_sets::zadd),
        Rewrite::Scores,
    ),
    spec("zcard", 2, ONE_KEY, READ, sorted_sets::zcard),
    spec("zincrby", 4, ONE_KEY, WRITE, sorted_sets::zincrby),
    spec("zrangebyscore", -4, ONE_KEY, READ, sorted_sets::zrangebyscore),
    spec("zrem", -3, ONE_KEY, WRITE, sorted_sets::zrem),
    spec(
        "zrevrangebyscore",
        -4,
        ONE_KEY,
        READ,
        sorted_sets::zrevrangebyscore,
    ),
    spec("zscore", 3, ONE_KEY, READ, sorted_sets::zscore),
];

/// Room for a command's name; longer names are unknown.
const LONGEST: usize = 16;

/// A name as a number, so that two are compared in one step. Numbers sort as the names do.
const fn number(mut name: &[u8]) -> u128 {
    let (mut number, mut room) = (0, LONGEST);
    while let [byte, rest @ ..] = name
        && room > 0
    {
        number = (number << 8) | byte.to_ascii_lowercase() as u128;
        (name, room) = (rest, room - 1);
    }
    // A shift by all bits is none: a name without a byte.
    if room == LONGEST { 0 } else { number << (8 * room) }
}

/// The names of [`TABLE`], as numbers.
#[expect(clippy::indexing_slicing, reason = "the compiler works it out")]
static NUMBERS: [u128; TABLE.len()] = {
    let mut numbers = [0; TABLE.len()];
    let mut place = 0;
    while place < TABLE.len() {
        numbers[place] = number(TABLE[place].name.as_bytes());
        place += 1;
    }
    numbers
};

/// The place in the table and the command of a name in any case.
pub fn find(name: &[u8]) -> Option<(usize, &'static Spec)> {
    let place = NUMBERS.binary_search(&number(name)).ok()?;
    let spec = TABLE.get(place)?;
    // The length tells a longer name, or one that ends in zeros, from the command that it begins with.
    (spec.name.len() == name.len()).then_some((place, spec))
}

/// Commands that Redis and Valkey have and that are not spoken here: a client that sends one is not a mere session
/// handler, and the name of what it wanted is worth knowing. Anything else counts as `other`, so that no client can
/// make the list of counters grow.
pub fn known_elsewhere(name: &[u8]) -> &'static str {
    const NAMES: &str = "acl bgrewriteaof bgsave bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpop \
        brpoplpush bzmpop bzpopmax bzpopmin copy debug dump eval_ro evalsha_ro failover fcall fcall_ro \
        function geoadd geodist geohash geopos georadius georadius_ro georadiusbymember \
        georadiusbymember_ro geosearch geosearchstore getbit getrange hexpire hpersist hpexpire hpttl \
        hrandfield hscan httl lastsave latency lcs lindex linsert llen lmove lmpop lolwut lpop lpos \
        lpush lpushx lrange lrem lset ltrim memory migrate module monitor move msetnx object pfadd \
        pfcount pfmerge psync randomkey replconf replicaof restore rpop rpoplpush rpush rpushx save \
        sdiff sdiffstore sentinel setbit setrange shutdown sinter sintercard sinterstore slaveof slowlog \
        smove sort sort_ro spop spublish srandmember sscan ssubscribe substr sunion sunionstore \
        sunsubscribe swapdb sync waitaof xack xadd xautoclaim xclaim xdel xgroup xinfo xlen xpending \
        xrange xread xreadgroup xrevrange xtrim zcount zdiff zinter zinterstore zlexcount zmpop zmscore \
        zpopmax zpopmin zrandmember zrange zrangebylex zrangestore zrank zremrangebyscore zrevrange \
        zscan zunionstore";
    NAMES
        .split(' ')
        .find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_name_is_found() {
        for (place, spec) in TABLE.iter().enumerate() {
            assert_eq!(
                find(spec.name.to_ascii_uppercase().as_bytes()).map(|(at, _)| at),
                Some(place)
            );
        }
        assert!(find(b"").is_none());
        assert!(find(b"averyveryverylongname").is_none());
        assert!(find(b"zrevrangebyscore+").is_none());
        assert!(find(b"get\0").is_none());
        assert!(find(b"ge").is_none());
    }

    #[test]
    fn only_known_names_are_counted_by_name() {
        assert_eq!(known_elsewhere(b"LPUSH"), "lpush");
        assert_eq!(known_elsewhere(b"made-up"), "other");
    }
}
