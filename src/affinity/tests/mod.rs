mod fixture;
mod traefik_ingress;
