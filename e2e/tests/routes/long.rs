//! What does not fit CI's budget: `make test-long` runs these, picked by `long::` in their names.

mod http_proxy;
