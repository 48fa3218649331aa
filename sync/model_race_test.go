//go:build race

package sync_test

// raceSlows is by how much less the model test does with the race detector, which slows it down about eightfold. The long form is
// without it: "go test ./sync", as "make mutate" also runs it.
const raceSlows = 16
