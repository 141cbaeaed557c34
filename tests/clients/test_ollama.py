"""The unmodified `ollama` client against the daemon.

The caller gives, through the environment: OLLAMA_HOST (the daemon), DSK_TEST_REGISTRY (host:port of an
empty embedded registry) and DSK_TEST_GGUF (SmolLM2-135M-Instruct).
"""

import datetime
import os
import unittest

import ollama

MODEL = "smollm2:135m"
REMOTE = f"{os.environ['DSK_TEST_REGISTRY']}/library/smollm2:135m"
THINKER = "thinker:latest"
# Ends in an open thinking block unless thinking is switched off, as DeepSeek-R1's template does.
THINKING_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking -%}
<think>

</think>

{% else -%}
<think>
{% endif -%}
"""
GREEDY = {"temperature": 0, "num_predict": 24, "seed": 1}

client = ollama.Client()


def setUpModule():
    digest = client.create_blob(os.environ["DSK_TEST_GGUF"])
    client.create(MODEL, files={"smollm2.gguf": digest})
    client.create(THINKER, from_=MODEL, template=THINKING_TEMPLATE)


def ask(text):
    return [{"role": "user", "content": text}]


class Models(unittest.TestCase):
    def test_list_names_the_model_with_details(self):
        (model,) = [m for m in client.list().models if m.model == MODEL]
        self.assertGreater(model.size, 98_000_000)
        self.assertEqual(len(model.digest), 64)
        self.assertEqual(model.details.family, "llama")
        self.assertEqual(model.details.format, "gguf")
        self.assertEqual(model.details.quantization_level, "Q4_1")
        self.assertLess(model.modified_at, datetime.datetime.now(datetime.timezone.utc))

    def test_show_tells_what_the_file_says(self):
        shown = client.show(MODEL)
        self.assertEqual(shown.modelinfo["general.architecture"], "llama")
        self.assertEqual(shown.modelinfo["llama.context_length"], 8192)
        self.assertEqual(shown.capabilities, ["completion"])
        self.assertIn("FROM", shown.modelfile)
        self.assertIn("thinking", client.show(THINKER).capabilities)

    def test_copy_and_delete(self):
        client.copy(MODEL, "copied:latest")
        self.assertIn("copied:latest", [m.model for m in client.list().models])
        client.delete("copied:latest")
        self.assertNotIn("copied:latest", [m.model for m in client.list().models])
        self.assertIn(MODEL, [m.model for m in client.list().models])

    def test_push_then_pull_with_progress(self):
        client.copy(MODEL, REMOTE)
        self.assertEqual(client.push(REMOTE, insecure=True).status, "success")
        client.delete(REMOTE)
        lines = list(client.pull(REMOTE, insecure=True, stream=True))
        self.assertEqual(lines[0].status, "pulling manifest")
        self.assertEqual(lines[-1].status, "success")
        moved = [line for line in lines if line.total and line.completed]
        self.assertTrue(moved and all(line.completed <= line.total for line in moved))
        self.assertIn(REMOTE, [m.model for m in client.list().models])
        client.delete(REMOTE)

    def test_create_with_every_field_keeps_them(self):
        client.create(
            "pirate",
            from_=MODEL,
            system="Talk like a pirate.",
            parameters={"temperature": 0.2, "stop": ["Ahoy"], "num_ctx": 1024},
            license=["one licence", "another"],
            messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "arr"}],
        )
        shown = client.show("pirate")
        self.assertIn("temperature", shown.parameters)
        self.assertIn("one licence", shown.license)
        self.assertIn("Talk like a pirate.", shown.modelfile)
        client.delete("pirate")


class Generate(unittest.TestCase):
    def test_generate_answers_and_counts(self):
        question, system = "What is the capital of France?", "You are a helpful assistant."
        reply = client.generate(MODEL, question, system=system, options=GREEDY)
        self.assertTrue(reply.done)
        # This model says as much under llama.cpp: "La femme de France, le Grand Croix, ..."
        self.assertIn("France", reply.response)
        self.assertGreater(reply.prompt_eval_count, 3)
        self.assertTrue(0 < reply.eval_count <= 24)
        self.assertGreater(reply.total_duration, 0)

    def test_stream_equals_the_whole(self):
        whole = client.generate(MODEL, "Name three colours.", options=GREEDY).response
        parts = list(client.generate(MODEL, "Name three colours.", options=GREEDY, stream=True))
        self.assertEqual("".join(part.response for part in parts), whole)
        self.assertTrue(parts[-1].done)
        self.assertIn(parts[-1].done_reason, ("stop", "length"))

    def test_raw_prompt_skips_the_template(self):
        reply = client.generate(MODEL, "1, 2, 3, 4, 5,", raw=True, options=GREEDY)
        self.assertIn("6", reply.response)
        self.assertFalse(reply.context)

    def test_stop_sequence_ends_the_answer(self):
        options = {**GREEDY, "stop": ["4"]}
        reply = client.generate(MODEL, "1, 2, 3,", raw=True, options=options)
        self.assertNotIn("4", reply.response)
        self.assertEqual(reply.done_reason, "stop")

    def test_empty_prompt_loads_and_unloads(self):
        self.assertEqual(client.generate(MODEL, "").done_reason, "load")
        self.assertIn(MODEL, [m.model for m in client.ps().models])
        self.assertEqual(client.generate(MODEL, "", keep_alive=0).done_reason, "unload")
        self.assertNotIn(MODEL, [m.model for m in client.ps().models])


class Chat(unittest.TestCase):
    def test_chat_remembers_its_turns(self):
        turns = ask("My name is Alice.")
        turns += [{"role": "assistant", "content": "Nice to meet you, Alice!"}]
        turns += ask("What is my name?")
        reply = client.chat(MODEL, turns, options=GREEDY)
        self.assertEqual(reply.message.role, "assistant")
        self.assertIn("Alice", reply.message.content)

    def test_stream_equals_the_whole(self):
        whole = client.chat(MODEL, ask("Say hello."), options=GREEDY).message.content
        parts = list(client.chat(MODEL, ask("Say hello."), options=GREEDY, stream=True))
        self.assertGreater(len(parts), 2)
        self.assertEqual("".join(part.message.content for part in parts), whole)

    def test_a_seed_repeats_itself(self):
        options = {"seed": 7, "temperature": 1.0, "num_predict": 16}
        first = client.chat(MODEL, ask("Tell me a story."), options=options).message.content
        again = client.chat(MODEL, ask("Tell me a story."), options=options).message.content
        self.assertEqual(first, again)

    def test_thinking_on_and_off(self):
        on = client.chat(THINKER, ask("2+2?"), think=True, options=GREEDY)
        self.assertTrue(on.message.thinking)
        off = client.chat(THINKER, ask("2+2?"), think=False, options=GREEDY)
        self.assertFalse(off.message.thinking)
        self.assertTrue(off.message.content)

    def test_ps_shows_the_loaded_model(self):
        client.chat(MODEL, ask("hi"), options={"num_predict": 1}, keep_alive="10m")
        (loaded,) = [m for m in client.ps().models if m.model == MODEL]
        self.assertGreater(loaded.size, 90_000_000)
        self.assertGreater(loaded.context_length, 0)
        left = loaded.expires_at - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(300 < left.total_seconds() <= 600, left)


class Refusals(unittest.TestCase):
    def refused(self, status, words, call, *args, **kwargs):
        with self.assertRaises(ollama.ResponseError) as caught:
            call(*args, **kwargs)
        self.assertEqual(caught.exception.status_code, status)
        self.assertIn(words, caught.exception.error)

    def test_unknown_model(self):
        self.refused(404, "not found", client.chat, "no-such-model", ask("hi"))
        self.refused(404, "not found", client.show, "no-such-model")
        self.refused(404, "not found", client.delete, "no-such-model")

    def test_bad_names(self):
        self.refused(400, "invalid model name", client.generate, "../../etc/passwd", "hi")

    def test_wrong_types_in_options(self):
        options = {"temperature": "hot"}
        self.refused(400, "temperature", client._request, dict, "POST", "/api/chat",
                     json={"model": MODEL, "messages": ask("hi"), "options": options})

    def test_embeddings_are_refused_clearly(self):
        self.refused(400, "does not support embeddings", client.embed, MODEL, "hi")
        self.refused(400, "does not support embeddings", client.embeddings, MODEL, "hi")

    def test_thinking_on_a_model_that_cannot(self):
        self.refused(400, "does not support thinking", client.chat, MODEL, ask("hi"), think=True)

    def test_tools_and_images_are_refused_clearly(self):
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        self.refused(400, "tools", client.chat, MODEL, ask("hi"), tools=[tool])
        self.refused(400, "image", client.generate, MODEL, "hi", images=[b"\x89PNG"])

    def test_a_pull_of_nothing(self):
        name = f"{os.environ['DSK_TEST_REGISTRY']}/library/nothing:here"
        with self.assertRaises(ollama.ResponseError) as caught:
            list(client.pull(name, insecure=True, stream=True))
        self.assertIn("does not exist", caught.exception.error)

    def test_copy_of_nothing(self):
        self.refused(404, "not found", client.copy, "no-such-model", "other")


if __name__ == "__main__":
    unittest.main()
