package sources

import (
	"crypto/sha256"
	"log/slog"
	"reflect"
)

// made is what a Vault was made from, as far as it can be compared.
type made struct {
	config VaultConfig // without what is of no weight
	files  [][sha256.Size]byte
}

// makingOf is asked before the files are read to be used: what changes in between is a change.
func makingOf(config VaultConfig) made {
	m := made{config: config}
	m.config.MakeStateDir, m.config.Logger = nil, (*slog.Logger)(nil)
	for _, file := range []string{
		config.CACert, config.ClientCert, config.ClientKey,
		// A login with these is made again if they change. Others are read so often that a change needs no more.
		config.Auth.RoleIDFile, config.Auth.SecretIDFile,
	} {
		m.files = append(m.files, sumOf(file, maxPEM))
	}
	return m
}

// Serves reports whether NewVault would make the same of config, also of the certificates, role-id and secret-id in their
// files as they are now. Then v, with its token and its connection, can be used in place of a new one.
func (v *Vault) Serves(config VaultConfig) bool { return reflect.DeepEqual(v.made, makingOf(config)) }
