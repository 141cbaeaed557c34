"""The unmodified `openai` client against the daemon (OPENAI_BASE_URL); see test_ollama.py."""

import os
import unittest

import ollama
import openai

MODEL = "smollm2:135m"
client = openai.OpenAI(api_key="unused", max_retries=0)
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
]


def setUpModule():
    local = ollama.Client()
    digest = local.create_blob(os.environ["DSK_TEST_GGUF"])
    local.create(MODEL, files={"smollm2.gguf": digest})


class Chat(unittest.TestCase):
    def test_models(self):
        self.assertIn(MODEL, [model.id for model in client.models.list()])
        self.assertEqual(client.models.retrieve(MODEL).object, "model")

    def test_whole(self):
        reply = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_completion_tokens=24)
        (choice,) = reply.choices
        # This model says as much under llama.cpp: "La femme de France, le Grand Croix, ..."
        self.assertIn("France", choice.message.content)
        self.assertIn(choice.finish_reason, ("stop", "length"))
        usage = reply.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertLessEqual(usage.completion_tokens, 24)

    def test_stream_equals_the_whole(self):
        arguments = dict(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=24)
        whole = client.chat.completions.create(**arguments).choices[0].message.content
        stream = client.chat.completions.create(
            **arguments, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertGreater(chunks[-1].usage.completion_tokens, 0)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertIn(reasons[-1], ("stop", "length"))

    def test_length_is_told(self):
        reply = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, max_tokens=2)
        self.assertEqual(reply.choices[0].finish_reason, "length")

    def test_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="no-such-model", messages=MESSAGES)
        self.assertIn("no-such-model", str(caught.exception))

    def test_bad_requests_are_named(self):
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=[])
        with self.assertRaises(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=MESSAGES, n=3)


if __name__ == "__main__":
    unittest.main()
