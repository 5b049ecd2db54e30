//! One file per promise of the design (section 2). A test here fails when the promise is broken.

mod p10_bounded;
mod p10_memory;
mod p1_durable_accept;
mod p1_sick_disk;
mod p2_at_least_once;
mod p2_kept_connections;
mod p3_frozen;
mod p3_same_bytes;
mod p4_no_blind_spot;
mod p5_floods;
mod p5_isolation;
mod p5_schemas;
mod p5_strangers;
mod p6_nothing_silent;
mod p7_echoes;
mod p7_kept_values;
mod p7_secrets;
mod p8_egress;
mod very_many_webhooks;
