//! shmtop on real runs: an exchange and traders as processes of their own, a fault, and what shmtop, its recordings and its metrics say.

mod actors;
mod deaths;
mod elsewhere;
mod limits;
mod prometheus;
mod recordings;
