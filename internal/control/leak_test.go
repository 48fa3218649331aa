package control_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "4") // they wait more than they compute
	goleak.VerifyTestMain(m)
}
