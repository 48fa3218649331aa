package main

import (
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/vault"
)

// node is one of several that keep their storage together by raft. It starts sealed, and new where its directory is
// empty: whoever started it initialises or joins, and unseals it by Vault's own API, as an operator does.
type node struct {
	dir         string // of its storage, which outlives the process; empty: no raft
	id          string
	clusterAddr string // host:port where the other nodes reach it
	multiplier  int    // of raft's timeouts: 5 is Vault's default, 1 what HashiCorp recommends for production
}

// core makes the core of a node whose API is at address.
func (n node) core(address string, messages io.Writer) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: n.id, Level: hclog.Error, Output: messages})
	storage, err := raft.NewRaftBackend(map[string]string{
		"path": n.dir, "node_id": n.id, "performance_multiplier": strconv.Itoa(n.multiplier),
		// How soon a node that has joined gets its vote.
		"autopilot_reconcile_interval": "1s", "autopilot_update_interval": "1s",
	}, logger)
	if err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	others, err := net.ResolveTCPAddr("tcp", n.clusterAddr)
	if err != nil {
		return nil, fmt.Errorf("cluster address: %w", err)
	}
	config := coreConfig(storage, logger)
	config.StorageType = "raft"
	config.HAPhysical = storage.(*raft.RaftBackend)
	config.RedirectAddr = address
	config.ClusterAddr = "https://" + n.clusterAddr
	core, err := vault.NewCore(config)
	if err != nil {
		return nil, fmt.Errorf("core: %w", err)
	}
	core.SetClusterListenerAddrs([]*net.TCPAddr{others})
	core.SetClusterHandler(vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}))
	return core, nil
}
