package credential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// FuzzDecodeSecret: whatever object a secret holds, what comes out is a credential that nlserver can be handed, or a reason
// that quotes nothing of it.
func FuzzDecodeSecret(f *testing.F) {
	for _, object := range append(secretObjects, jsonBombs(20000)...) {
		f.Add([]byte(object))
	}
	said := saidOf(secretObjects)
	f.Fuzz(func(t *testing.T, object []byte) {
		original := bytes.Clone(object)
		c, reason := decodeObject(fuzzFields, object)
		if !bytes.Equal(object, original) {
			t.Fatal("the bytes that were decoded were changed")
		}
		if reason != "" {
			if shown := shows(reason, said, object); shown != "" {
				t.Fatalf("the reason %q shows %q of the secret", reason, shown)
			}
			if c.OrgID != "" || c.ClientSecret.Reveal() != "" {
				t.Fatalf("refused for %q, and yet there is a credential", reason)
			}
			return
		}
		checkUsable(t, c)
		checkNothingTrimmed(t, c, object)
	})
}

// fuzzFields maps a field to another key, so that both the usual names and others are met.
var fuzzFields = Fields{FieldClientSecret: "secret"}

const goodObject = `{"ims_org_id":"0123456789ABCDEF01234567@AdobeOrg","client_id":"0123456789abcdef0123456789abcdef",` +
	`"technical_account_id":"0123456789ABCDEF@techacct.adobe.com","secret":"p8e-CanaryCanaryCanaryCanaryCanary12"%s}`

// secretObjects are the shapes that people and tools write, and every way of getting one wrong.
var secretObjects = func() []string {
	good := fmt.Sprintf(goodObject, "")
	objects := []string{
		good, "", "null", "[]", `"text"`, "{", "{}", `{"data":` + good + `}`, good + good, " \r\n" + good + "\n",
		fmt.Sprintf(goodObject, `,"private_key":"-----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY-----\n"`),
		fmt.Sprintf(goodObject, `,"private_key":null`), fmt.Sprintf(goodObject, `,"private_key":""`),
		fmt.Sprintf(goodObject, `,"private_key":"caf\u00e9"`),
		fmt.Sprintf(goodObject, `,"private_key":"`+strings.Repeat("A", 17<<10)+`"`),
		fmt.Sprintf(goodObject, `,"private_key":{"pem":"MIIEvQ=="}`),
		fmt.Sprintf(goodObject, `,"secret":"p8e-TheLastOfTwoTheLastOfTwoTheLast1"`),
		fmt.Sprintf(goodObject, `,"SECRET":7,"Client_ID":null,"note":[1e999999999,{"a":[]}]`),
	}
	for _, value := range []string{
		`null`, `""`, `7`, `1e999999999`, `true`, `["p8e-CanaryCanary"]`, `{"value":"p8e-CanaryCanary"}`, `"with/slash"`, `"newline\n"`,
		`"new\nline"`, `"a space"`, `" leading"`, `"nul\u0000"`, `"\ud83d\udca5"`, `"\ud83d"`, "\"\xff\"", `"tab\t"`, `"\u00e9"`, `"\u007f"`,
		`"` + strings.Repeat("x", 300) + `"`,
	} {
		for _, field := range []string{"0123456789ABCDEF01234567@AdobeOrg", "0123456789abcdef0123456789abcdef",
			"0123456789ABCDEF@techacct.adobe.com", "p8e-CanaryCanaryCanaryCanaryCanary12"} {
			objects = append(objects, strings.Replace(good, `"`+field+`"`, value, 1))
		}
	}
	for _, key := range []string{"ims_org_id", "client_id", "technical_account_id", `"secret"`} {
		objects = append(objects, strings.Replace(good, key, `"absent"`[len(key)-len(strings.Trim(key, `"`)):], 1))
	}
	return objects
}()

// jsonBombs are objects of about n bytes that cost a careless decoder far more than that.
func jsonBombs(n int) []string {
	return []string{
		strings.Repeat("[", n),
		strings.Repeat(`{"a":`, n/5),
		`{"secret":` + strings.Repeat("[", n/2) + strings.Repeat("]", n/2) + "}",
		`{"secret":` + strings.Repeat("9", n) + "}",
		`{"secret":1e` + strings.Repeat("9", n) + "}",
		"{" + strings.Repeat(`"secret":"x",`, n/13) + `"secret":"y"}`,
		"{" + distinctKeys(n) + `"secret":"y"}`,
		`{"secret":"` + strings.Repeat(`\u0000`, n/6) + `"}`,
		strings.Repeat(" ", n) + "{}",
	}
}

func distinctKeys(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `"%x":0,`, i)
	}
	return b.String()
}

// maxBomb is the largest answer that is taken from Vault, and the largest file.
const maxBomb = 1 << 20

// The largest answer that is taken from Vault costs memory in proportion to its size, whatever is in it.
func TestJSONBombsAreBounded(t *testing.T) {
	for i, bomb := range jsonBombs(maxBomb) {
		object := []byte(bomb)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, reason := decodeObject(fuzzFields, object)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 64*maxBomb {
			t.Errorf("bomb %d (%.20q…): %d bytes for %d", i, bomb, used, len(bomb))
		}
		if reason == "" || len(reason) > 300 {
			t.Errorf("bomb %d (%.20q…): reason %.400q", i, bomb, reason)
		}
	}
}

// checkUsable states in its own words what nlserver's argument of four fields can carry.
func checkUsable(t *testing.T, c Credential) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Errorf("a credential that is refused: %v", err)
	}
	argument := strings.Join([]string{c.OrgID, c.ClientID, c.TechnicalAccountID, c.ClientSecret.Reveal()}, "/")
	if !regexp.MustCompile(`^[!-.0-~]{1,256}(/[!-.0-~]{1,256}){3}$`).MatchString(argument) {
		t.Errorf("%q cannot be an argument of nlserver", argument)
	}
	if !regexp.MustCompile(`^[ -~\r\n]*$`).MatchString(c.PrivateKey.Reveal()) || len(c.PrivateKey.Reveal()) > 16<<10 {
		t.Errorf("%q cannot be a key", c.PrivateKey.Reveal())
	}
}

// checkNothingTrimmed: the fields are those of the object, of which the last counts where one is there twice.
func checkNothingTrimmed(t *testing.T, c Credential, object []byte) {
	t.Helper()
	values := topLevelStrings(object)
	for key, got := range map[string]string{"ims_org_id": c.OrgID, "client_id": c.ClientID,
		"technical_account_id": c.TechnicalAccountID, "secret": c.ClientSecret.Reveal(), "private_key": c.PrivateKey.Reveal()} {
		if got != values[key] {
			t.Errorf("field %s is %q, the object has %q", key, got, values[key])
		}
	}
}

// topLevelStrings reads key by key, which is not how the product does it.
func topLevelStrings(object []byte) map[string]string {
	values := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	decoder.Token() // the brace
	for decoder.More() {
		key, err := decoder.Token()
		var value any
		if err != nil || decoder.Decode(&value) != nil {
			return nil
		}
		name, _ := key.(string)
		delete(values, name)
		if text, ok := value.(string); ok {
			values[name] = text
		}
	}
	return values
}

// saidOf collects what is said of bad objects that hold nothing but well-known texts: from these words alone, in another
// order, the reasons are made.
func saidOf(objects []string) string {
	var said strings.Builder
	for _, object := range objects {
		_, reason := decodeObject(fuzzFields, []byte(object))
		said.WriteString(reason + "\n")
	}
	return said.String()
}

// shows returns a piece of text, eight bytes long, that is from the answer and from nowhere else, or "".
func shows(text, said string, answer []byte) string {
	const piece = 8
	var read [][]byte
	for at := 0; at+piece <= len(text); at++ {
		shown := text[at : at+piece]
		if strings.Contains(said, shown) {
			continue
		}
		if read == nil {
			read = append(stringsOf(answer), answer)
		}
		for _, value := range read {
			if bytes.Contains(value, []byte(shown)) {
				return shown
			}
		}
	}
	return ""
}

// stringsOf returns the texts in answer, without their escapes, as far as it is JSON.
func stringsOf(answer []byte) (values [][]byte) {
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.UseNumber()
	for {
		token, err := decoder.Token()
		if err != nil && err != io.EOF || token == nil && err == io.EOF {
			return values
		}
		if text, ok := token.(string); ok {
			values = append(values, []byte(text))
		}
	}
}

// decodeObject is decode by the way that sources take.
func decodeObject(fields Fields, object []byte) (Credential, string) {
	c, refusal := FromJSON("", Version{}, object)(fields)
	if refusal != nil {
		return c, strings.TrimPrefix(refusal.Reason, ": ")
	}
	return c, ""
}
