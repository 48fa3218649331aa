//go:build !race

package sync_test

const raceSlows = 1
