package push

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"campaign-credsync/internal/credential"
	"campaign-credsync/sources/vault/connection"
	"campaign-credsync/sources/vault/login"
)

// checkPolicy finds the secrets that a policy lets no events through for: the subscription is accepted all the same, and
// silent for ever. Where the question itself is not allowed, nothing is said.
func (s *subscriber) checkPolicy(ctx context.Context, t *login.Token) {
	paths := make([]string, len(s.secrets))
	for i, p := range s.secrets {
		paths[i] = p.path
	}
	var answer struct{ Data map[string]json.RawMessage }
	_, err := s.Connection.Do(ctx, connection.Request{
		Step: "look up the policy", Path: "sys/capabilities-self", Body: map[string]any{"paths": paths},
		Namespace: s.Namespace, Token: t.Text,
	}, &answer)
	if err != nil {
		return
	}
	for _, path := range paths {
		var capabilities []string
		if json.Unmarshal(answer.Data[path], &capabilities) == nil &&
			!slices.Contains(capabilities, "subscribe") && !slices.Contains(capabilities, "root") {
			s.Logger.Warn("the policy hides the events of a secret, using polls only",
				"path", credential.Escape(path), "reason", "add to the policy: "+ruleFor(path))
		}
	}
}

// remedy is what to add to the policy, or else to the configuration.
func (s *subscriber) remedy() string {
	rules := []string{`path "` + eventsPath + `" { capabilities = ["read"] }`}
	for _, p := range s.secrets {
		rules = append(rules, ruleFor(p.path))
	}
	return "add to the policy: " + strings.Join(rules, " ") + `, or set watch.events to "off"`
}

// ruleFor lets events of a secret through.
func ruleFor(path string) string {
	return fmt.Sprintf(`path "%s" { capabilities = ["read", "subscribe"] subscribe_event_types = ["%s"] }`, credential.Escape(path), eventTypes)
}
