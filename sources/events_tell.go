package sources

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"campaign-credsync/internal/credential"
)

const (
	toldConnected  = "subscribed to events of vault, new versions are found at once"
	toldNotOffered = "vault offers no events, new versions are found by polls alone"
	toldNotAllowed = "events of vault are not allowed, new versions are found by polls alone"
)

// tell logs what has become of the subscription, once.
func (s *subscriber) tell(ctx context.Context, level slog.Level, what string, args ...any) {
	if s.told == what {
		return
	}
	s.told = what
	s.vault.logger.Log(ctx, level, what, args...)
}

// connected has all secrets polled, as nobody tells of what was written before.
func (s *subscriber) connected(ctx context.Context, t *token) {
	s.announceAll()
	if s.told == toldConnected {
		s.vault.logger.Debug("subscribed to events of vault again")
		return
	}
	s.tell(ctx, slog.LevelInfo, toldConnected, "secrets", len(s.secrets))
	s.checkPolicy(ctx, t)
}

// checkPolicy finds the secrets that a policy lets no events through for: the subscription is accepted all the same, and
// silent for ever. Where the question itself is not allowed, nothing is said.
func (s *subscriber) checkPolicy(ctx context.Context, t *token) {
	paths := make([]string, len(s.secrets))
	for i, p := range s.secrets {
		paths[i] = p.path
	}
	bounded, question := s.vault.gate.bound(ctx, s.times.dial)
	defer question.cancel()
	answer, err := t.client.Logical().WriteWithContext(bounded, "sys/capabilities-self", map[string]any{"paths": paths})
	if err != nil || answer == nil {
		return
	}
	for _, path := range paths {
		capabilities, ok := answer.Data[path].([]any)
		if ok && !slices.Contains(capabilities, any("subscribe")) && !slices.Contains(capabilities, any("root")) {
			s.vault.logger.Warn("the policy lets no events of a secret through, new versions are found by polls alone",
				"path", credential.Escape(path), "reason", "add to the policy: "+ruleFor(path))
		}
	}
}

// offersEvents reports whether the Vault is one that may offer events: where it does not, it refuses them with the answer
// of a policy that lacks a line, and no policy helps.
func (s *subscriber) offersEvents(ctx context.Context, t *token) (version string, offers bool) {
	bounded, question := s.vault.gate.bound(ctx, s.times.dial)
	defer question.cancel()
	health, err := t.client.WithNamespace("").Sys().HealthWithContext(bounded)
	if err != nil {
		return "", true // not known
	}
	return clean(health.Version), mayOfferEvents(health.Version)
}

// mayOfferEvents knows Enterprise, and the versions that had events as an experiment.
func mayOfferEvents(version string) bool {
	if strings.Contains(version, "+ent") {
		return true
	}
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); err != nil {
		return true // not known
	}
	return major == 1 && minor >= 13 && minor <= 15
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
