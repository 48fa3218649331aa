package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/control"
	"campaign-credsync/internal/credential"
	"campaign-credsync/internal/ims"
	"campaign-credsync/sources/jsonfile"
	"campaign-credsync/sources/vault"
)

// endMargin is how long before the others' end who may have to end or revoke something has to begin with it.
const endMargin = 2 * time.Second

// soon is ctx with an end so early that what is begun in it can be ended in order before ctx ends.
func soon(ctx context.Context) (context.Context, context.CancelFunc) {
	end, _ := ctx.Deadline()
	return context.WithDeadline(ctx, end.Add(-endMargin))
}

// examine has the daemon ask Vault, or asks it where no daemon runs, for the first check that needs it. An error means that nothing is
// known.
func (x *examination) examine(ctx context.Context) (vault.Examination, error) {
	x.examineOnce.Do(func() {
		now := x.ask(ctx)
		ctx, cancel := soon(ctx)
		defer cancel()
		if errors.Is(now.err, control.ErrNoDaemon) {
			x.examined, x.notExamined = x.Examine(ctx)
			return
		}
		if x.notExamined = now.err; x.notExamined != nil {
			return
		}
		var text []byte
		if text, x.notExamined = control.AskVault(ctx, x.Config.Config.ControlSocket); x.notExamined == nil {
			x.notExamined = json.Unmarshal(text, &x.examined)
		}
	})
	return x.examined, x.notExamined
}

// usesVault reports whether any instance has its credential there.
func (x *examination) usesVault() bool { return x.Config.Config.Vault.Address != "" }

// fromVault makes findings of what Vault answers, where there is a login.
func (x *examination) fromVault(ctx context.Context, look func(vault.Examination) []Finding) []Finding {
	if !x.usesVault() {
		return []Finding{well("Vault is not used")}
	}
	e, err := x.examine(ctx)
	switch {
	case errors.Is(err, control.ErrMayNotAsk):
		return []Finding{unseen(asRoot, "this user may not have the daemon ask Vault")}
	case err != nil:
		return []Finding{unseen("see journalctl -u campaign-credsync; a daemon of an older release has to be restarted", "nothing is known of Vault: %v", err)}
	case e.Problem != "":
		return []Finding{unseen("mend the login first", "there is no login to Vault")}
	}
	return look(e)
}

// vaultAddress finds a Vault that is asked without TLS over a network.
func (x *examination) vaultAddress(context.Context) []Finding {
	if !x.usesVault() {
		return []Finding{well("Vault is not used")}
	}
	address := x.Config.Config.Vault.Address
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback() {
		return []Finding{well("%s", address)}
	}
	return []Finding{warn("set vault.address to an https address, then: systemctl reload campaign-credsync",
		"%s: the secret and the login cross the network in clear, and anybody there can answer in Vault's place", address)}
}

// login tells whether there is a token.
func (x *examination) login(ctx context.Context) []Finding {
	if e, err := x.examine(ctx); x.usesVault() && err == nil && e.Problem != "" {
		return []Finding{failed(control.Remedy(e.Reason), "%s", e.Problem)}
	}
	return x.fromVault(ctx, func(e vault.Examination) []Finding {
		who := "doctor's own login, as no daemon runs"
		if x.ask(ctx).err == nil {
			who = "the daemon's login"
		}
		if e.Expires.IsZero() {
			return []Finding{well("%s; the token's end is not known", who)}
		}
		return []Finding{well("%s; the token ends %s", who, e.Expires.UTC().Format(time.RFC3339))}
	})
}

// secret tells whether each instance's credential can be read, and has the usual shape. It shows none of it.
func (x *examination) secret(ctx context.Context) (all []Finding) {
	return x.each(func(i config.Instance) []Finding {
		if i.Source == config.SourceFile {
			return []Finding{secretInFile(ctx, i)}
		}
		return x.fromVault(ctx, func(e vault.Examination) []Finding {
			n := slices.IndexFunc(e.Secrets, func(s vault.SecretExamination) bool { return s.Instance == i.Name })
			if n < 0 {
				return []Finding{unseen("systemctl reload campaign-credsync", "the running daemon does not know this instance")}
			}
			s := e.Secrets[n]
			if s.Problem != "" {
				return []Finding{failed(control.Remedy(s.Reason), "%s", s.Problem)}
			}
			return []Finding{shape(s.Odd, fmt.Sprintf("version %d", s.Version))}
		})
	})
}

// shape is the finding about a credential that can be read.
func shape(odd []string, which string) Finding {
	if len(odd) > 0 {
		return warn("compare it with Adobe's Developer Console; older credentials may look so", "%s: %s of an unusual shape", which, strings.Join(odd, ", "))
	}
	return well("%s, of the usual shape", which)
}

func secretInFile(ctx context.Context, i config.Instance) Finding {
	reading, err := jsonfile.New(i.File, nil, discard).Poll(ctx, func(credential.Version) bool { return true })
	if err == nil {
		c, refusal := reading.Credential(i.Fields.Names())
		if refusal == nil {
			return shape(c.Oddities(), i.File)
		}
		err = refusal
	}
	if refusal, ok := errors.AsType[*credential.Refusal](err); ok {
		return failed(control.Remedy(refusal.Code), "%v", err)
	}
	return notRead(i.File, err)
}

// policy compares what the login may do with what the daemon needs.
func (x *examination) policy(ctx context.Context) []Finding {
	return x.each(func(i config.Instance) []Finding {
		if i.Source == config.SourceFile {
			return []Finding{well("Vault is not used")}
		}
		return x.fromVault(ctx, func(e vault.Examination) (all []Finding) {
			if e.Unseen != "" {
				return []Finding{unseen(`give the role Vault's policy "default", which allows to update sys/capabilities-self`, "%s", e.Unseen)}
			}
			for _, s := range e.Secrets {
				if s.Instance == i.Name {
					all = append(all, narrowness(i, s.Allowed)...)
					all = append(all, wideness(s.Allowed)...)
				}
			}
			if len(all) == 0 {
				all = append(all, well("it may read, and neither write, delete nor list"))
			}
			return all
		})
	})
}

// narrowness are findings about what is needed and not allowed.
func narrowness(i config.Instance, allowed []vault.Allowed) (all []Finding) {
	for _, a := range allowed {
		if !a.Needed || vault.MayRead(a.Capabilities) {
			continue
		}
		f := failed(fmt.Sprintf(`add to the policy: path "%s" { capabilities = ["read"] }`, a.Path), "the login may not read %s", a.Path)
		if a.Path == path.Join(i.Mount, "metadata", i.Path) {
			f.Level = Warning
			f.Found += ", so each poll reads the secret itself"
		}
		all = append(all, f)
	}
	return all
}

// harmless are capabilities that the daemon needs, or that allow nothing.
var harmless = []string{"deny", "subscribe"}

// wideness are findings about what is allowed and not needed.
func wideness(allowed []vault.Allowed) (all []Finding) {
	for _, a := range allowed {
		if slices.Contains(a.Capabilities, "root") {
			return []Finding{warn("make a role with the policy in docs/install.md, and let the daemon log in with it", "the token is a root token: it may do everything")}
		}
		var more []string
		for _, c := range a.Capabilities {
			if !slices.Contains(harmless, c) && !(c == "read" && a.Needed) {
				more = append(more, c)
			}
		}
		if len(more) > 0 {
			all = append(all, warn(`take it out of the policy; "read" of the secret's data and metadata is enough`, "the login may %s %s", strings.Join(more, ", "), a.Path))
		}
	}
	return all
}

// secretID tells of a secret-id's end.
func (x *examination) secretID(ctx context.Context) []Finding {
	return x.fromVault(ctx, func(e vault.Examination) []Finding {
		warning := x.Config.Config.Vault.Auth.SecretIDWarn
		switch {
		case e.SecretID == nil && e.SecretIDUnseen == "":
			return []Finding{well("the login has no secret-id")}
		case e.SecretID == nil:
			return []Finding{unseen(`add to the policy: path "`+e.RolePath+`/secret-id/lookup" { capabilities = ["update"] }`, "its end is not known: %s", e.SecretIDUnseen)}
		case e.SecretID.Ends.IsZero():
			return []Finding{warn("vault write "+e.RolePath+" secret_id_ttl=2160h, then a new secret-id before each end", "the secret-id never ends: one that was stolen is good for ever")}
		}
		end := e.SecretID.Ends.UTC().Format(time.RFC3339)
		if time.Until(e.SecretID.Ends) < warning {
			return []Finding{warn("vault write -f -field=secret_id "+e.RolePath+"/secret-id, into "+x.Config.Config.Vault.Auth.SecretIDFile, "the secret-id ends %s", end)}
		}
		return []Finding{well("the secret-id ends %s", end)}
	})
}

// roleShared tells whether other hosts may use the role: five refused logins of one of them lock it for all.
func (x *examination) roleShared(ctx context.Context) []Finding {
	return x.fromVault(ctx, func(e vault.Examination) []Finding {
		switch {
		case e.RolePath == "":
			return []Finding{well("the login has no AppRole, so no role is locked")}
		case e.SecretIDs > 1:
			return []Finding{warn("make a role for each host; or, where they must share one: vault auth tune -user-lockout-disable=true "+x.Config.Config.Vault.Auth.Mount+"/",
				"%s has %d secret-ids: if other hosts have them, five refused logins of one lock out all", e.RolePath, e.SecretIDs)}
		case e.SecretIDs == 1:
			return []Finding{well("%s has one secret-id", e.RolePath)}
		case e.SecretID != nil && len(e.SecretID.Addresses) > 0:
			return []Finding{well("the secret-id is for %s only", strings.Join(e.SecretID.Addresses, ", "))}
		}
		return []Finding{unseen("as who administers Vault: vault list "+e.RolePath+"/secret-id", "how many secret-ids the role has is not seen")}
	})
}

// ims tells whether Adobe's login service can be reached, where it is asked. No token is fetched for that.
func (x *examination) ims(ctx context.Context) []Finding {
	c := x.Config.Config.IMS
	if c.Probe == "off" && c.Recheck == 0 {
		return []Finding{well("ims.probe and ims.recheck are off, so it is not asked")}
	}
	ctx, cancel := soon(ctx)
	defer cancel()
	if err := ims.New(c.Endpoint, c.Scopes).Reach(ctx); err != nil {
		return []Finding{warn("mend the network, or HTTPS_PROXY of the unit; new versions are applied unproven until then, after ims.patience", "%v", err)}
	}
	return []Finding{well("%s answers", c.Endpoint)}
}

// maxClockError is how far clocks may be apart: deletions in the future, ends of tokens and the times in the records depend on them.
const maxClockError = 30 * time.Second

// clock compares the clock with Vault's.
func (x *examination) clock(ctx context.Context) []Finding {
	if !x.usesVault() {
		return []Finding{well("Vault is not used, so there is no clock to compare with")}
	}
	e, err := x.examine(ctx)
	switch {
	case err != nil, e.ClockAhead == nil:
		return []Finding{unseen("mend the login first", "Vault did not answer, so there is no clock to compare with")}
	case e.ClockAhead.Abs() > maxClockError:
		where := "behind"
		if *e.ClockAhead < 0 {
			where = "ahead of"
		}
		return []Finding{warn("timedatectl set-ntp true, here or where Vault runs", "this clock is %v %s Vault's", e.ClockAhead.Abs().Round(time.Second), where)}
	}
	return []Finding{well("within %v of Vault's", maxClockError)}
}
