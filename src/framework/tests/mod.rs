mod configured;
mod django;
mod express;
mod fixture;
mod php;
mod preflight;
mod tomcat;
