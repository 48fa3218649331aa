package credential

// What is said where something of a JWT credential is found, and what to do.
const (
	JWTCommand  = "campaign.command is setimsjwtauth"
	JWTInFile   = "the file has a private key (authIMSTAPrivateKey)"
	JWTInSecret = "the secret has a private key"
	JWTRemedy   = "Adobe has ended JWT credentials: create an OAuth Server-to-Server credential in Adobe's Developer Console, update Campaign to " +
		"7.4.1 build 9383 or later on every host, then write that credential to the secret, without private_key; see docs/migrate-from-jwt.md"
)
