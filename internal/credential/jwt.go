package credential

// AttributePrivateKey is the attribute of a configuration file that holds the private key of a JWT credential.
const AttributePrivateKey = "authIMSTAPrivateKey"

// HasPrivateKey reports whether a has a private key, as only JWT credentials do.
func (a Attributes) HasPrivateKey() bool { return a.Get(AttributePrivateKey).Value != "" }

// What is said where something of a JWT credential is found, and what to do.
const (
	JWTCommand  = "campaign.command is setimsjwtauth"
	JWTInFile   = "the file has a private key (" + AttributePrivateKey + ")"
	JWTInSecret = "the secret has a private key"
	JWTRemedy   = "Adobe has ended JWT credentials: create an OAuth Server-to-Server credential in Adobe's Developer Console, update Campaign to " +
		"7.4.1 build 9383 or later on every host, then write that credential to the secret, without private_key; see docs/migrate-from-jwt.md"
)
