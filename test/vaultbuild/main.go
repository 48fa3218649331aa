// Command vaultbuild builds the real Vault that the tests start, where it is missing or old, and shows how far it is.
package main

import (
	"context"
	"fmt"
	"os"

	"campaign-credsync/test/vaulttest"
)

func main() {
	if err := vaulttest.Build(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "vaultbuild:", err)
		os.Exit(1)
	}
}
