package credential

// Proof is what was seen of a step of activation after it was done. The zero value is for a step of which nothing can be seen, or
// nobody looked.
type Proof struct {
	Result ProofResult `json:"result"`
	Text   string      `json:"text,omitempty"`   // for people: why it is not proven
	Before []string    `json:"before,omitempty"` // of ProofMissing: the processes that there were before
}

// ProofResult is what a look for a module came to. A record keeps it.
type ProofResult string

// The results.
const (
	ProofSeen    ProofResult = "proven"   // the module runs again, in a new process, and not in our unit
	ProofAbsent  ProofResult = "absent"   // there was no such module, so there is nothing to prove
	ProofUnknown ProofResult = "unknown"  // it cannot be told
	ProofMissing ProofResult = "unproven" // it does not run again: worth another look
)
