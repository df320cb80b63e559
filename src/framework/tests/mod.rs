mod configured;
mod django;
mod express;
mod fixture;
mod memcached;
mod php;
mod preflight;
mod tomcat;
