// Package e2e_test drives the daemon as a process, from outside: a real Vault, a Campaign home in a temporary directory
// with a stand-in of nlserver, and the daemon built with the race detector. Each test asks what the world is like
// afterwards, and each ends with the same questions (see finish).
//
// The stand-in was written from Adobe's documentation; what passes here has not met the real nlserver.
package e2e_test
