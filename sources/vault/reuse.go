package vault

import (
	"crypto/sha256"
	"reflect"

	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/regularfile"
)

// made is what a Vault was made from, as far as it can be compared.
type made struct {
	config Config              // without what is of no weight
	files  [][sha256.Size]byte // sums of the role-id and of the files
}

// makingOf is asked before the files are read to be used: what changes in between is a change.
func makingOf(config Config) made {
	m := made{config: config}
	m.config.Logger = nil
	m.config.Auth.RoleID = credential.Secret{} // which cannot be compared
	m.files = append(m.files, sha256.Sum256([]byte(config.Auth.RoleID.Reveal())))
	for _, file := range []string{
		config.CACert, config.ClientCert, config.ClientKey,
		// A login with these is made again if they change. Others are read so often that a change needs no more.
		config.Auth.RoleIDFile, config.Auth.SecretIDFile,
	} {
		m.files = append(m.files, sumOf(file))
	}
	return m
}

// sumOf tells contents of a file apart; it is zero for one that is empty or cannot be read, and for no name.
func sumOf(file string) [sha256.Size]byte {
	content, err := regularfile.Read(file, 16<<20)
	if file == "" || err != nil || len(content) == 0 {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(content)
}

// Serves reports whether New would make the same of config, also of the certificates, role-id and secret-id in their files
// as they are now. Then v, with its token and its connection, can be used in place of a new one.
func (v *Vault) Serves(config Config) bool { return reflect.DeepEqual(v.made, makingOf(config)) }
