//go:build systemd

package systemd

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const webhookHeader = "Authorization: Bearer abc"

// told is what the examples of hooks have sent.
type told struct{ webhook, mail chan string }

// listen starts what the examples of hooks send to: a web server, and a mail server that takes one mail after another.
func listen(t *testing.T, p *reader) {
	p.told = told{make(chan string, 100), make(chan string, 100)}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.told.webhook <- "Authorization: " + r.Header.Get("Authorization") + "\n" + string(body)
	}))
	t.Cleanup(web.Close)
	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mail.Close() })
	go func() {
		for {
			conn, err := mail.Accept()
			if err != nil {
				return
			}
			p.told.mail <- takeMail(conn)
		}
	}()
	p.here = append(p.here, "https://hooks.example.com", web.URL, "smtp://mail.example.com", "smtp://"+mail.Addr().String())
	p.write(t, "/etc/campaign-credsync/webhook.header", webhookHeader+"\n", 0o640)
	p.run(t, "chgrp", "neolane", "/etc/campaign-credsync/webhook.header")
}

// takeMail speaks as much SMTP as it takes to be sent one mail, and returns all that the other side says.
func takeMail(conn net.Conn) (said string) {
	defer conn.Close()
	in := bufio.NewScanner(conn)
	io.WriteString(conn, "220 here\r\n")
	for body := false; in.Scan(); {
		line := in.Text()
		said += line + "\n"
		switch {
		case body && line != ".":
			continue
		case strings.HasPrefix(line, "DATA"):
			body = true
			io.WriteString(conn, "354 go on\r\n")
			continue
		case strings.HasPrefix(line, "QUIT"):
			io.WriteString(conn, "221 bye\r\n")
			return said
		}
		body = false
		io.WriteString(conn, "250 ok\r\n")
	}
	return said
}

// hooksTell has the daemon tell each example of a pause, from the unit's sandbox.
func hooksTell(t *testing.T, p *reader, _ string) {
	defer p.configure(t, p.config)
	for program, sent := range map[string]chan string{"credsync-webhook": p.told.webhook, "credsync-mail": p.told.mail} {
		p.configure(t, p.config+"notify: {exec: [/usr/local/bin/"+program+"]}\n")
		p.run(t, "systemctl", "reload", unit)
		p.run(t, "runuser", "-u", "neolane", "--", "env", "CREDENTIALS_DIRECTORY=/run/credentials/"+unit, "campaign-credsync", "pause", "--for", "1h", "--reason", "of "+program)
		var said string
		await(t, "what "+program+" sends", patience, func() bool {
			select {
			case said = <-sent:
				return strings.Contains(said, "of "+program)
			default:
				return false
			}
		})
		p.run(t, "runuser", "-u", "neolane", "--", "env", "CREDENTIALS_DIRECTORY=/run/credentials/"+unit, "campaign-credsync", "resume")
		for line := range strings.Lines(said) {
			var event struct{ Event string }
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &event) == nil {
				said += "event " + event.Event
			}
		}
		says(t, said, "event paused")
		want := webhookHeader
		if program == "credsync-mail" {
			want = "Subject: credsync on "
		}
		says(t, said, want)
	}
	p.isInSync(t)
}
