package vault

import (
	"context"
	"errors"
	"net/http"
	"path"
	"slices"
	"time"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// Use is how an instance uses a secret.
type Use struct {
	Instance    string
	Mount, Path string
	KVVersion   int
	Fields      credential.Fields
}

// Examination is what Vault answers about a login and what it may do. Nothing in it is secret. A newer release may add fields.
type Examination struct {
	// ClockAhead is by how much Vault's clock is ahead of this machine's; nil: Vault did not answer.
	ClockAhead *time.Duration `json:"clock_ahead_ns"`

	Problem string            `json:"problem"` // why there is no token; empty: there is one
	Reason  credential.Reason `json:"reason"`  // of Problem
	Expires time.Time         `json:"token_expires_at"`

	Secrets []SecretExamination `json:"secrets"`
	// Unseen is why the capabilities are not known.
	Unseen string `json:"capabilities_unseen"`

	RolePath       string          `json:"role_path"`        // of an AppRole; empty: another login, or not said
	SecretID       *login.SecretID `json:"secret_id"`        // nil: see SecretIDUnseen
	SecretIDUnseen string          `json:"secret_id_unseen"` // empty beside nil: the login has none
	SecretIDs      int             `json:"secret_ids"`       // of the role; 0: this login may not list them
}

// SecretExamination is about one instance's secret.
type SecretExamination struct {
	Instance string            `json:"instance"`
	Version  int               `json:"version"`
	Problem  string            `json:"problem"` // why there is no credential; empty: there is one
	Reason   credential.Reason `json:"reason"`  // of Problem
	Odd      []string          `json:"odd"`     // fields of an unusual shape
	Allowed  []Allowed         `json:"allowed"`
}

// Allowed is what the policy allows at one path.
type Allowed struct {
	Path         string   `json:"path"`
	Capabilities []string `json:"capabilities"`
	Needed       bool     `json:"needed"` // to read there is what the daemon does
}

// Examine asks Vault, within the time of ctx, what this login may do, and reads each secret once. It spends no token that may be used a
// few times only, beyond the reads.
func (v *Vault) Examine(ctx context.Context, uses []Use) (e Examination) {
	asked := time.Now()
	now, err := v.connection.Do(ctx, connection.Request{Step: "ask for the time", Path: "sys/health", Query: everyStateIsWell}, nil)
	if err == nil {
		ahead := now.Sub(asked.Add(time.Since(asked) / 2))
		e.ClockAhead = &ahead
	} else if ctx.Err() != nil || !connection.Answer(err).Sent { // nobody is there: a login that is not answered may count as a refused one
		e.fail(err)
		return e
	}
	t, err := v.session.token(ctx)
	if err != nil {
		e.fail(err)
		return e
	}
	e.Expires = t.Expires
	for _, use := range uses {
		e.Secrets = append(e.Secrets, SecretExamination{Instance: use.Instance})
	}
	if t.FewUses() {
		e.Unseen = "Vault gives tokens that may be used a few times only; none is spent on this"
		e.SecretIDUnseen = e.Unseen
	} else {
		v.examinePolicy(ctx, t, uses, &e)
		v.examineRole(ctx, t, &e)
	}
	for n, use := range uses {
		v.examineSecret(ctx, use, &e.Secrets[n])
	}
	return e
}

// fail says why there is no token.
func (e *Examination) fail(err error) {
	err = credential.Because(connection.Reason(err), err)
	e.Problem, e.Reason = err.Error(), credential.ReasonOf(err)
}

// everyStateIsWell has sys/health answer 200 for whatever state the node is in: its clock is all that is asked for.
var everyStateIsWell = map[string][]string{
	"standbyok": {"true"}, "perfstandbyok": {"true"}, "sealedcode": {"200"}, "uninitcode": {"200"}, "drsecondarycode": {"200"},
	"performancestandbycode": {"200"}, "standbycode": {"200"},
}

// examinePolicy asks what the token may do at the paths of the secrets.
func (v *Vault) examinePolicy(ctx context.Context, t *login.Token, uses []Use, e *Examination) {
	var paths []string
	for n, use := range uses {
		kv := v.KV(use.Mount, use.Path, use.KVVersion)
		kinds := []string{"data", "metadata", "delete", "undelete", "destroy"}
		above, beside := path.Dir(kv.at("metadata")), path.Dir(kv.at("data"))
		if kv.engine == 1 {
			kinds, above, beside = []string{""}, path.Dir(kv.at("")), path.Dir(kv.at(""))
		}
		for i, kind := range kinds {
			e.Secrets[n].Allowed = append(e.Secrets[n].Allowed, Allowed{Path: kv.at(kind), Needed: i < 2})
		}
		e.Secrets[n].Allowed = append(e.Secrets[n].Allowed, Allowed{Path: above + "/"}, Allowed{Path: beside + "/any-other-secret"})
		for _, a := range e.Secrets[n].Allowed {
			paths = append(paths, a.Path)
		}
	}
	allowed, err := v.capabilities(ctx, t, v.config.Namespace, paths)
	if err != nil {
		e.Unseen = err.Error()
	}
	for n := range e.Secrets {
		for i := range e.Secrets[n].Allowed {
			e.Secrets[n].Allowed[i].Capabilities = allowed[e.Secrets[n].Allowed[i].Path]
		}
	}
}

// capabilities asks what the token may do at paths. The policy "default" allows the question.
func (v *Vault) capabilities(ctx context.Context, t *login.Token, namespace string, paths []string) (map[string][]string, error) {
	var answer struct {
		Data map[string][]string `json:"data"`
	}
	_, err := v.connection.Do(ctx, connection.Request{
		Step: "ask what the token may do", Path: "sys/capabilities-self", Body: map[string]any{"paths": paths}, Namespace: namespace, Token: t.Text,
	}, &answer)
	return answer.Data, err
}

// examineRole looks at the secret-id, and at how many the role has.
func (v *Vault) examineRole(ctx context.Context, t *login.Token, e *Examination) {
	e.RolePath = v.session.method.RolePath(t)
	secretID, err := v.session.method.LookUpSecretID(ctx, t)
	switch {
	case err == nil:
		e.SecretID = &secretID
	case !errors.Is(err, login.ErrNoSecretID):
		e.SecretIDUnseen = err.Error()
	}
	if e.RolePath == "" {
		return
	}
	list := e.RolePath + "/secret-id"
	allowed, err := v.capabilities(ctx, t, v.config.Auth.Namespace, []string{list})
	if err != nil || !slices.Contains(allowed[list], "list") && !slices.Contains(allowed[list], "root") {
		return
	}
	var answer struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	_, err = v.connection.Do(ctx, connection.Request{
		Step: "list the secret-ids of the role", Path: list, Query: map[string][]string{"list": {"true"}}, Namespace: v.config.Auth.Namespace, Token: t.Text,
	}, &answer)
	if err == nil {
		e.SecretIDs = len(answer.Data.Keys)
	}
}

// examineSecret reads the secret as a poll does.
func (v *Vault) examineSecret(ctx context.Context, use Use, e *SecretExamination) {
	kv := v.KV(use.Mount, use.Path, use.KVVersion)
	if slices.ContainsFunc(e.Allowed, func(a Allowed) bool {
		return a.Path == kv.at("metadata") && len(a.Capabilities) > 0 && !MayRead(a.Capabilities)
	}) {
		kv.hiddenUntil = time.Now().Add(metadataHidden) // which the daemon has logged
	}
	reading, err := kv.Poll(ctx, func(credential.Version) bool { return true })
	if err == nil {
		e.Version = reading.Version.Number
		c, refusal := reading.Credential(use.Fields)
		if refusal == nil {
			e.Odd = c.Oddities()
			return
		}
		err = refusal
	}
	e.Problem, e.Reason = err.Error(), credential.ReasonOf(err)
	if connection.Answer(err).Status == http.StatusForbidden {
		e.Reason = credential.ReasonVaultDenied
	}
}

// MayRead reports whether capabilities allow to read.
func MayRead(capabilities []string) bool {
	return slices.Contains(capabilities, "read") || slices.Contains(capabilities, "root")
}
