// A platform that asks before it creates a user.
//
//	GATEPOST_URL=http://127.0.0.1:8080 GATEPOST_KEY=gp_… go run caller.go acme ada
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

const budget = 800 * time.Millisecond

// Decision is what is used of the answer here.
type Decision struct {
	ID       string `json:"id"`
	Decision string `json:"decision"`
	Cause    string `json:"cause"`
	Object   struct {
		User map[string]any `json:"user"`
	} `json:"object"`
	Messages []struct {
		Code string `json:"code"`
		Text string `json:"text"`
	} `json:"messages"`
}

// A little more than the budget: Gatepost answers within it.
var client = &http.Client{Timeout: budget + 200*time.Millisecond}

func post(path string, body any, headers map[string]string) (*http.Response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest("POST", os.Getenv("GATEPOST_URL")+"/v1/tenants/"+path, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("GATEPOST_KEY"))
	request.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	return client.Do(request)
}

// mayCreate asks; a nil decision means that Gatepost was not there.
func mayCreate(tenant, login string) (*Decision, error) {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	// The same key at the repetition: the same decision, and nobody is asked twice.
	headers := map[string]string{
		"Gatepost-Timeout-Ms": fmt.Sprint(budget.Milliseconds()),
		"Idempotency-Key":     hex.EncodeToString(key),
	}
	question := map[string]any{
		"subject": map[string]string{"type": "user", "id": login},
		"object":  map[string]any{"user": map[string]any{"login": login}},
	}
	for attempt := 1; attempt <= 2; attempt++ {
		response, err := post(tenant+"/operations/createUser/invoke", question, headers)
		if err != nil {
			continue
		}
		defer response.Body.Close()
		var decision Decision
		if json.NewDecoder(response.Body).Decode(&decision) != nil {
			continue
		}
		switch {
		// A 503 with a decision was made without the receivers: a no stays a no.
		case response.StatusCode == 200, response.StatusCode == 503 && decision.Decision != "":
			return &decision, nil
		case response.StatusCode < 500 && response.StatusCode != 429:
			return nil, fmt.Errorf("our own mistake: %s", response.Status)
		}
		return nil, nil
	}
	return nil, nil
}

func main() {
	tenant, login := os.Args[1], os.Args[2]
	decision, err := mayCreate(tenant, login)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// Your own policy for when Gatepost is not there: here, no.
	if decision == nil {
		fmt.Fprintln(os.Stderr, "refused: try again later")
		os.Exit(1)
	}
	if decision.Decision != "allow" {
		fmt.Fprintln(os.Stderr, "refused:", decision.Cause, decision.Messages)
		os.Exit(1)
	}
	fmt.Println("created", decision.Object.User["login"]) // commit decision.Object
	if response, err := post(tenant+"/invocations/"+decision.ID+"/outcome", map[string]any{"committed": true}, nil); err == nil {
		response.Body.Close()
	}
}
