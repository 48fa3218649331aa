// Package sinks writes credentials into Adobe Campaign Classic v7: through nlserver, which encrypts them, and, to put
// drift back, straight into the instance's configuration file.
//
// That file belongs to others. It also holds the database login, people edit it by hand, and nlserver itself rewrites
// it in place. So no byte outside the managed attributes is changed, no update of another writer is lost, the file is
// never created, and never replaced by something that does not parse. What cannot be done that way is not done: the
// caller is told and may let nlserver do it.
//
// encoding/xml would re-serialise the file, so it is no help in writing it: a scanner of our own checks that the
// document is well-formed and remembers where each attribute stands, and the splice copies all other bytes as they are.
//
// What is known of nlserver is what Adobe has published; no exit-code contract is, so success is proved by reading the
// file again.
package sinks
