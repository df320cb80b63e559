//! The Helm chart, rendered for three sets of values: what it asks for, what it grants, and that nothing of it
//! changed unseen.

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod pod_security;
#[cfg(test)]
mod rbac;
#[cfg(test)]
mod rendered;
