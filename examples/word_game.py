"""An environment on one screen: guess a word of five letters. The same file runs under TRL's `environment_factory`.

rayzero env check examples.word_game:WordGame --row '{"answer": "crane"}'
rayzero env play examples.word_game:WordGame --row '{"answer": "crane", "prompt": "Guess a word of five letters."}'
"""


class WordGame:
    """After each guess: a capital letter is in its place, a small one elsewhere in the word, and a dot in no place."""

    def __init__(self) -> None:
        self.word, self.guesses, self.done = "", 0, False

    def reset(self, answer: str, **row: object) -> str:
        """Begin a game. What is returned stands at the end of the prompt."""
        self.word, self.guesses, self.done = answer.lower(), 0, False
        return f" It begins with {self.word[0].upper()}."

    def guess(self, word: str) -> str:
        """Guess the word.

        Args:
            word: Five letters.
        """
        if self.done:
            raise ValueError("the game is over")  # the model sees this as the tool's answer
        word = word.strip().lower()
        if len(word) != 5 or not word.isalpha():
            raise ValueError(f"{word!r} has not five letters")
        self.guesses += 1
        self.done = word == self.word  # ends the episode
        return "".join(
            letter.upper() if letter == there else letter if letter in self.word else "."
            for letter, there in zip(word, self.word, strict=True)
        )

    def get_reward(self) -> float:
        """1 for the word at the first guess, a tenth less for each further one; without it 0."""
        return max(0.0, 1.0 - 0.1 * (self.guesses - 1)) if self.done else 0.0
