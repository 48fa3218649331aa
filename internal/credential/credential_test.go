package credential_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"campaign-credsync/internal/credential"
)

const canary = "p8e-CANARY_canary-CANARY_canary-CANA"

func good() credential.Credential {
	return credential.Credential{
		OrgID: "0123456789ABCDEF01234567@AdobeOrg", ClientID: "0123456789abcdef0123456789abcdef",
		TechnicalAccountID: "0123456789ABCDEF@techacct.adobe.com", ClientSecret: credential.NewSecret(canary),
	}
}

// Every way of printing that the daemon, its libraries or a debugging person may try.
func TestSecretCannotPrint(t *testing.T) {
	c := good()
	type holder struct {
		hidden credential.Secret
		Open   credential.Secret
		Inner  *credential.Credential
	}
	h := holder{c.ClientSecret, c.ClientSecret, &c}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T", "%o", "%c", "%U"} {
		for _, value := range []any{c.ClientSecret, &c.ClientSecret, c, &c, h, &h, []credential.Secret{c.ClientSecret}, map[string]any{"a": c}} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
	}
	for _, value := range []any{c.ClientSecret, c, &c, h} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("m", "value", value)
		}
	}
	fmt.Fprint(&out, fmt.Errorf("wrapped: %v, %s", c.ClientSecret, c))
	hex := fmt.Sprintf("%x", canary)
	for _, form := range []string{canary, hex, strings.ToUpper(hex), base64.StdEncoding.EncodeToString([]byte(canary))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("printed as %q", form)
		}
	}
	if c.ClientSecret.Reveal() != canary || (credential.Secret{}).Reveal() != "" {
		t.Error("not revealed")
	}
}

func TestCheckRefusesAndNeverTrims(t *testing.T) {
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(c *credential.Credential)
		wants  string
	}{
		{"the commonest mistake", func(c *credential.Credential) { c.ClientSecret = credential.NewSecret(canary + "\n") }, "client_secret ends in a newline"},
		{"a newline inside", func(c *credential.Credential) { c.ClientSecret = credential.NewSecret("a\nb") }, "client_secret holds a space, a control character"},
		{"the end of a field for nlserver", func(c *credential.Credential) { c.ClientID = "a/b" }, `client_id holds a "/"`},
		{"a space in front", func(c *credential.Credential) { c.OrgID = " " + c.OrgID }, "ims_org_id holds a space, a control"},
		{"empty", func(c *credential.Credential) { c.TechnicalAccountID = "" }, "technical_account_id is empty"},
		{"NUL", func(c *credential.Credential) { c.ClientID = "a\x00b" }, "client_id holds a space, a control character or"},
		{"not ASCII", func(c *credential.Credential) { c.ClientID = "a💥" }, "client_id holds a space, a control character or a character outside ASCII"},
		{"not UTF-8", func(c *credential.Credential) { c.ClientID = "a\xff" }, "client_id holds a space, a control character or a character outside ASCII"},
		{"too long", func(c *credential.Credential) { c.ClientID = strings.Repeat("a", 257) }, "client_id is longer than 256"},
		{"a key that is none", func(c *credential.Credential) { c.PrivateKey = credential.NewSecret("\x00") }, "private_key holds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := good()
			c.change(&bad)
			err := bad.Check()
			if err == nil || !strings.Contains(err.Error(), c.wants) {
				t.Fatalf("error is %v, want one with %q", err, c.wants)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error shows the value: %v", err)
			}
		})
	}
	long := good()
	long.ClientID = strings.Repeat("a", 256)
	if err := long.Check(); err != nil {
		t.Error(err)
	}
}

// What a template, a secret manager or a log left in the place of a secret is refused, and nothing that may be one.
func TestCheckRefusesPlaceholders(t *testing.T) {
	fields := map[string]func(c *credential.Credential, value string){
		"ims_org_id":           func(c *credential.Credential, value string) { c.OrgID = value },
		"client_id":            func(c *credential.Credential, value string) { c.ClientID = value },
		"technical_account_id": func(c *credential.Credential, value string) { c.TechnicalAccountID = value },
		"client_secret":        func(c *credential.Credential, value string) { c.ClientSecret = credential.NewSecret(value) },
		"private_key":          func(c *credential.Credential, value string) { c.PrivateKey = credential.NewSecret(value) },
	}
	for _, value := range []string{
		"ENC[AES256_GCM,data:Yx8=,iv:aa/b=,tag:c/d==,type:str]", "enc[PKCS7,MIIBeQYJ]", "${CLIENT_SECRET}", "${", "p8e-${SECRET}", "{{client_secret}}",
		"{{.Data.secret}}", "p8e-{{secret}}", "REDACTED", "[redacted]", "***REDACTED***", "p8e-redacted", "changeme", "CHANGE_ME", "ChangeMe123", "change-me",
	} {
		for field, set := range fields {
			bad := good()
			set(&bad, value)
			err := bad.Check()
			if err == nil || !strings.HasPrefix(err.Error(), "field "+field+" is a placeholder") {
				t.Errorf("%s %q: error is %v", field, value, err)
			}
		}
	}
	for _, value := range []string{
		canary, "p8e-ENC_enc-exchange_me-unredacted-red", "0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f", "a$b{c}d", "$}{", "x{{}}", "a{{b", "a${b", "${}x"[1:],
		`p8e-<"&'>\%+=?#~^|{}[]:;,.$!*()@_-`, "xENC[", "me-change", "reducted", "p8e-{a}{b}$c",
	} {
		c := good()
		c.ClientSecret = credential.NewSecret(value)
		if err := c.Check(); err != nil {
			t.Errorf("%q is refused: %v", value, err)
		}
	}
}

func TestOdditiesAreOnlyNamed(t *testing.T) {
	if odd := good().Oddities(); len(odd) != 0 {
		t.Errorf("the usual shapes are odd: %v", odd)
	}
	strange := credential.Credential{OrgID: "org", ClientID: "client", TechnicalAccountID: "account", ClientSecret: credential.NewSecret("s")}
	if odd := strange.Oddities(); len(odd) != 4 || strange.Check() != nil {
		t.Errorf("odd are %v, refused: %v", odd, strange.Check())
	}
}

func TestDigestTellsCredentialsApart(t *testing.T) {
	key, other := []byte("key"), []byte("other key")
	a, b := good(), good()
	if a.Digest(key) != b.Digest(key) {
		t.Error("the same credential has two digests")
	}
	if a.Digest(key) == a.Digest(other) {
		t.Error("the key does not count")
	}
	// "ab"+"c" is not "a"+"bc".
	a.OrgID, a.ClientID = "ab", "c"
	b.OrgID, b.ClientID = "a", "bc"
	if a.Digest(key) == b.Digest(key) {
		t.Error("fields run into each other")
	}
}

func TestRedactFindsEveryForm(t *testing.T) {
	secret := `se"cr<et&+/x`
	for _, form := range []string{
		secret, url.QueryEscape(secret), "se&#34;cr&lt;et&amp;+/x", `se\"cr\u003cet\u0026+/x`,
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)), fmt.Sprintf("%x", secret),
		fmt.Sprintf("%X", secret),
	} {
		got := credential.Redact("before "+form+" after", credential.NewSecret(secret), credential.Secret{})
		if got != "before [redacted] after" {
			t.Errorf("%q is left as %q", form, got)
		}
	}
}

func TestEscapeLeavesNoControlCharacter(t *testing.T) {
	got := credential.Escape("a\x1b[31mred\r\nforged line\x00\x9b \u202e \"quoted\" \\")
	if strings.ContainsAny(got, "\x1b\r\n\x00\u202e") || strings.Contains(got, "\x9b") {
		t.Errorf("%q", got)
	}
	if !strings.Contains(got, `"quoted" \`) || !strings.Contains(got, " | forged line") {
		t.Errorf("harmless text is spoiled: %q", got)
	}
}

func TestGoingBack(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	v := func(number, created int) credential.Version {
		return credential.Version{Number: number, Created: day(created)}
	}
	key := []byte("key")
	file := func(number int, text string) credential.Version {
		return credential.NumberedContent(number, key, []byte(text))
	}
	content := func(text string) credential.Version { return credential.ContentVersion(key, []byte(text)) }
	of := func(secret string, v credential.Version) credential.Version {
		v.Secret = secret
		return v
	}
	begun := func(on int, v credential.Version) credential.Version {
		v.Begun = day(on)
		return v
	}
	for _, c := range []struct {
		name     string
		to, from credential.Version
		want     bool
	}{
		{"newer", v(3, 3), v(2, 2), false},
		{"the same", v(2, 2), v(2, 2), false},
		{"a stale standby", v(1, 1), v(2, 2), true},
		{"deleted and written anew", v(1, 3), v(2, 2), false},
		{"a stale standby after it was written anew", v(1, 1), v(1, 3), true},
		{"a lower number of the same instant", v(1, 2), v(2, 2), true},
		{"a stale standby after it was written anew, a higher number", begun(1, v(3, 3)), begun(4, v(1, 4)), true},
		{"deleted and written anew, a lower number", begun(4, v(1, 4)), begun(1, v(3, 3)), false},
		{"in another Vault, written there later", begun(1, v(9, 6)), begun(3, v(5, 5)), false},
		{"a clock that was set back", begun(1, v(4, 2)), begun(1, v(3, 3)), false},
		{"nobody knows when one of them began", v(3, 3), begun(4, v(1, 4)), false},
		{"nothing was applied yet", v(1, 1), credential.Version{}, false},
		{"a file that is counted", file(3, "b"), file(2, "a"), false},
		{"a file that is counted, an older one", file(1, "a"), file(2, "b"), true},
		{"a file, another content under the same number", file(2, "c"), file(2, "b"), false},
		{"a file that is not counted", content("a"), content("b"), false},
		{"a file that is not counted any more", content("a"), file(2, "b"), false},
		{"a file that is counted from now on", file(1, "b"), content("a"), false},
		{"from Vault to a file", file(1, "a"), v(2, 2), false},
		{"from a file to Vault", v(1, 1), file(2, "a"), false},
		{"from Vault to version 1 of the engine", content("a"), v(2, 2), false},
		{"from version 1 of the engine to version 2", v(1, 1), content("a"), false},
		{"of another secret", of("a", v(1, 1)), of("b", v(2, 2)), false},
		{"of the same secret", of("a", v(1, 1)), of("a", v(2, 2)), true},
		{"of a secret that was not noted", of("a", v(1, 1)), v(2, 2), true},
		{"in another file", of("/a", file(1, "a")), of("/b", file(2, "b")), false},
	} {
		if got := c.to.GoesBackFrom(c.from); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A version that is made of the content is the same for the same content and key, and tells nothing of it.
func TestContentVersion(t *testing.T) {
	key, text := []byte("key"), []byte(canary)
	v := credential.ContentVersion(key, text)
	if !v.Equal(credential.ContentVersion(key, text)) {
		t.Error("the same content has two versions")
	}
	if v.Equal(credential.ContentVersion([]byte("other key"), text)) || v.Equal(credential.ContentVersion(key, text[1:])) {
		t.Error("key or content do not count")
	}
	if v.IsZero() || !v.Unordered || v.Number < 1 || v.Number > 1<<31-1 {
		t.Errorf("version %+v", v)
	}
	numbered := credential.NumberedContent(v.Number, key, text)
	if numbered.Equal(v) || numbered.Unordered {
		t.Error("a number by chance makes them equal")
	}
	written, err := json.Marshal(v)
	if err != nil || strings.Contains(string(written), canary) {
		t.Errorf("written as %s, %v", written, err)
	}
	var read credential.Version
	if err := json.Unmarshal(written, &read); err != nil || !read.Equal(v) {
		t.Errorf("read back as %+v, %v", read, err)
	}
	// As releases before this one wrote it.
	if err := json.Unmarshal([]byte(`{"number":3,"created":"2026-01-01T00:00:00Z"}`), &read); err != nil || read.Number != 3 {
		t.Errorf("an old record is read as %+v, %v", read, err)
	}
	old, err := json.Marshal(credential.Version{Number: 3})
	if err != nil || strings.Contains(string(old), "digest") || strings.Contains(string(old), "unordered") {
		t.Errorf("a version of Vault's is written as %s, %v", old, err)
	}
}

func TestDriftAsksTheFirstOfTwoOfOneName(t *testing.T) {
	for _, c := range []struct {
		wanted, seen credential.Attributes
		drift        string
	}{
		{credential.Attributes{{Name: "a", Value: "1"}}, credential.Attributes{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}, "[]"},
		{credential.Attributes{{Name: "a", Value: "2"}}, credential.Attributes{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}, "[a]"},
		{credential.Attributes{{Name: "a", Absent: true}}, credential.Attributes{{Name: "b"}}, "[]"},
		{credential.Attributes{{Name: "a", Absent: true}}, credential.Attributes{{Name: "a"}}, "[a]"},
		{credential.Attributes{{Name: "a"}}, nil, "[a]"},
		{credential.Attributes{{Name: "a", Value: "x", Raw: []byte(`"x"`)}}, credential.Attributes{{Name: "a", Value: "x", Raw: []byte(`'&#120;'`)}}, "[]"},
	} {
		if got := fmt.Sprint(credential.Drift(c.wanted, c.seen)); got != c.drift {
			t.Errorf("%v in %v: %s, want %s", c.wanted, c.seen, got, c.drift)
		}
	}
}
