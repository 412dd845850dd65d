//! Random histories, judged by brute force and by a checker that is not ours.

mod adya;
mod brute;
mod database;
