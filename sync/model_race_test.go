//go:build race

package sync_test

// raceSlows is how much the race detector slows the model test down, about.
const raceSlows = 8
