package vaulttest_test

import (
	"strings"
	"testing"

	"campaign-credsync/test/vaulttest"
)

// Tests that share a Vault have each their own part of it, and none seals it for the others.
func TestSharedVault(t *testing.T) {
	one, other := vaulttest.Shared(t), vaulttest.Shared(t)
	if !one.External && (one.Address != other.Address || one.Mount == other.Mount || one.AuthMount == other.AuthMount) {
		t.Errorf("%s and %s, mounts %s, %s and %s, %s", one.Address, other.Address, one.Mount, one.AuthMount, other.Mount, other.AuthMount)
	}
	if err := one.Seal(t.Context()); err == nil || !one.External && !strings.Contains(err.Error(), "start one of the test's own") {
		t.Errorf("sealed: %v", err)
	}
	one.MustWrite("a/b", map[string]any{"k": "v"})
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Write(t.Context(), "a/b", map[string]any{"k": "v"}); err == nil {
		t.Error("its mount is there after its end")
	}
	other.MustWrite("a/b", map[string]any{"k": "v"})
}
