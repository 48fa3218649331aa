package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"campaign-credsync/internal/config"
	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
)

const (
	// loginGrace is how long a login may outlive its cancelled context: without its answer nobody would know whether the
	// secret-id was refused.
	loginGrace = time.Second
	// renewAt is the part of a token's life after which another one is due, jittered.
	renewAt = 2.0 / 3
)

// asked is what somebody asked for, and was not done yet.
type asked int32

const (
	askedNothing asked = iota
	askedNow           // do not wait
	askedAgain         // do not wait, and try again also what was refused
)

// method is a login at a mount of Vault's. Its parts differ in what an attempt consists of.
type method struct {
	connection *connection.Connection
	logins     *connection.Connection // what the login itself goes over
	auth       config.Auth
	logger     *slog.Logger
	// prepare reads what the login needs from its files, anew each time. It asks nobody on the network, but for a secret-id
	// that has to be unwrapped.
	prepare  func(context.Context, asked) (*attempt, error)
	refusals *refusals
	wrapping *wrapping    // nil, but where the secret-id is wrapped
	end      *secretIDEnd // nil where nobody is to be warned
	files    []string

	asked   atomic.Int32
	backoff backoff // between failed logins
	uses    int64   // for how many the last token was
}

func newMethod(config Config, prepare func(context.Context, asked) (*attempt, error)) *method {
	return &method{
		connection: config.Connection, logins: config.Connection, auth: config.Auth, logger: config.Logger,
		prepare: prepare, refusals: &refusals{State: config.State},
	}
}

// attempt is one login about to be made.
type attempt struct {
	request  map[string]string // as documented in the API of the method
	identity []string          // what makes two attempts at this mount the same; for a digest only
	secret   credential.Secret // what no error may show
	remedies map[int]string    // status of the answer → what to do
	// refusal says that Vault refused this very attempt, in its own words for that, and what to do; empty where the same
	// attempt may succeed later.
	refusal string
	// tooOften says the same of one that was refused so often in a row that not even an operator's word tries it again for now.
	tooOften string
}

// wrongLogin are the words of every Vault since 0.6, and of OpenBao, for a role-id or a secret-id that it does not know, or not
// any more. Other refusals, as for the address that a login comes from, may be over at the next try.
var wrongLogin = regexp.MustCompile(`(?i)^(?:failed to validate (?:SecretID|credentials): )?(?:` +
	`invalid role or secret id\b|invalid (?:role|secret)[ _]id\b|invalid credentials\b|` +
	`failed to find secondary index for role_id\b|failed to validate role_id\b|` +
	`role .* referred by the (?:SecretID|role_id)\b.* does not exist)|` +
	`^failed to validate credentials; could not find role\b`)

func (m *method) Login(ctx context.Context) (*Token, error) {
	end, err := m.processTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := m.connection.Throttled(); err != nil {
		return nil, err
	}
	asked := asked(m.asked.Swap(int32(askedNothing)))
	a, err := m.prepare(ctx, asked)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("vault at %s: waiting for a login: %w", m.connection.Address(), ctx.Err())
	}
	key := m.key(a)
	verdict, until := unknown, time.Time{}
	if a.refusal != "" {
		verdict, until = m.refusals.judge(key)
	}
	switch {
	case verdict == triedTooOften:
		return nil, &BackoffError{credential.NeedsOperator(errors.New(a.tooOften)), until}
	case verdict == wasRefused && asked != askedAgain:
		return nil, &BackoffError{credential.NeedsOperator(errors.New(a.refusal)), until}
	}
	if err := m.backoff.over(key, asked); err != nil {
		return nil, err
	}
	counts := a.refusal != "" && verdict != wasAccepted // Vault may count it as a refused one
	if counts {
		if err := m.refusals.begin(key); err != nil {
			return nil, credential.NeedsOperator(fmt.Errorf("%s: not tried, as a refused secret-id could not be remembered, and five refused "+
				"logins lock the role for every host: %w; let this user write to state_dir", m.step(), err))
		}
	}
	t, err := m.ask(ctx, a)
	if err != nil {
		return nil, m.failed(ctx, a, key, counts, err)
	}
	m.succeeded(a, key, t)
	return t, nil
}

func (m *method) step() string { return "login at auth/" + m.auth.Mount }

// key is what makes two attempts the same.
func (m *method) key(a *attempt) string {
	return m.refusals.digest(append([]string{m.connection.Address(), m.auth.Namespace, m.auth.Mount}, a.identity...)...)
}

// processTurn waits for the login of another process of ours. A command that only reads gives up where that is not done in
// time; a daemon goes on, as it notes what it tries beforehand.
func (m *method) processTurn(ctx context.Context) (end func(), err error) {
	end, err = m.refusals.turn(ctx)
	if err != nil && (m.refusals.OnlyReads || !errors.Is(err, errOthersTurn)) {
		end()
		return nil, fmt.Errorf("vault login: %w", err)
	}
	if err != nil {
		m.logger.Warn("login goes on without waiting for another process", "reason", err.Error())
	}
	return end, nil
}

// ask makes the login.
func (m *method) ask(ctx context.Context, a *attempt) (*Token, error) {
	var answer struct {
		Auth struct {
			Token    string            `json:"client_token"`
			Lease    int               `json:"lease_duration"` // in seconds; 0: it never ends
			Metadata map[string]string `json:"metadata"`
			Uses     int64             `json:"num_uses"` // 0: any number
			Type     string            `json:"token_type"`
		} `json:"auth"`
	}
	born := time.Now()
	_, err := m.logins.Do(ctx, connection.Request{
		Step: m.step(), Path: "auth/" + m.auth.Mount + "/login", Body: a.request,
		Namespace: m.auth.Namespace, Hide: []credential.Secret{a.secret}, Grace: loginGrace,
	}, &answer)
	granted := answer.Auth
	switch {
	case err != nil:
		return nil, err
	case granted.Token == "":
		return nil, fmt.Errorf("vault at %s: %s: the answer holds no token; check vault.address and the mount",
			m.connection.Address(), m.step())
	}
	t := &Token{Text: credential.NewSecret(granted.Token), Born: born, Revocable: granted.Type != "batch"}
	if granted.Uses > 0 {
		t.uses = new(atomic.Int64)
		t.uses.Store(granted.Uses)
		m.tellUses(granted.Uses)
	}
	if ttl := time.Duration(granted.Lease) * time.Second; ttl > 0 {
		t.Expires = born.Add(ttl)
		t.renew = born.Add(jittered(time.Duration(float64(ttl) * renewAt)))
	}
	if m.end != nil && t.uses == nil {
		m.end.look(t.Text, a.secret, granted.Metadata["role_name"])
	}
	return t, nil
}

// tellUses says, once, what it costs that tokens may not be used as often as it takes.
func (m *method) tellUses(uses int64) {
	if m.uses == uses {
		return
	}
	m.uses = uses
	m.logger.Warn("vault gives tokens that may be used a few times only: each time they are used up is a login, at most one a "+
		"second, and no events are subscribed to; set token_num_uses of the role to 0", "uses", uses)
}

func (m *method) succeeded(a *attempt, key string, t *Token) {
	m.backoff = backoff{}
	if a.refusal != "" {
		m.refusals.accept(key)
	}
	if err := m.refusals.clear(refusedFile); err != nil {
		m.logger.Warn("cannot clear the record of a refused secret-id", "reason", err.Error())
	}
	if m.wrapping == nil && !m.refusals.OnlyReads { // an earlier configuration may have kept one
		if err := removeFile(filepath.Join(m.refusals.StateDir, keptFile)); err != nil {
			m.logger.Warn("cannot remove an unwrapped secret-id that is not used any more", "reason", err.Error())
		}
	}
	m.logger.Debug("logged in to vault", "mount", m.auth.Mount, "expires", t.Expires)
}

// failed remembers a failed login before its error is returned: a refused secret-id for an hour and across restarts, anything
// else for a short while. counts says that it was noted by begin.
func (m *method) failed(ctx context.Context, a *attempt, key string, counts bool, err error) error {
	answer := connection.Answer(err)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		// It was us who gave up: nothing is learnt from it, and it may have been refused.
		if counts {
			if noted := m.refusals.cut(key); noted != nil {
				err = fmt.Errorf("%w; not remembered: %w", err, noted)
			}
		}
		return err
	case a.refusal != "" && wrongLogin.MatchString(answer.Said):
		m.backoff = backoff{}
		refusal := fmt.Errorf("%s (vault says: %s)", a.refusal, answer.Said)
		until := time.Now().Add(jittered(refusedFor))
		if err := m.refusals.refuse(counts, func() string { return m.key(a) }, until); err != nil { // this process remembers it all the same
			return m.backoff.leaveAlone(m.key(a), fmt.Errorf("%w; not remembered across a restart: %w; make state_dir a directory that "+
				"this user may write to, and do not try again before", refusal, err))
		}
		return &BackoffError{credential.NeedsOperator(refusal), until}
	}
	if counts {
		if err := m.refusals.undo(); err != nil {
			m.logger.Warn("cannot clear the record of a login attempt", "reason", err.Error())
		}
	}
	if remedy := a.remedies[answer.Status]; remedy != "" {
		err = fmt.Errorf("%w: %s", err, remedy)
	}
	return m.backoff.failed(key, err)
}

func (m *method) Due() bool { return m.wrapping != nil && m.wrapping.isDue() }

func (m *method) Renew(ctx context.Context) bool {
	if !m.Due() {
		return false
	}
	end, err := m.processTurn(ctx)
	if err != nil {
		return false
	}
	defer end()
	renewed, err := m.wrapping.renew(ctx, asked(m.asked.Load()))
	m.wrapping.tell(ctx, err)
	return renewed
}

func (m *method) Retry(refused bool) {
	if refused {
		m.asked.Store(int32(askedAgain))
	} else {
		m.asked.CompareAndSwap(int32(askedNothing), int32(askedNow))
	}
	if m.wrapping != nil {
		m.wrapping.due.Store(now())
	}
}

func (m *method) Files() []string { return m.files }

func (m *method) Close() {
	if m.end != nil {
		m.end.close()
	}
}
