"""Openings of texts of many kinds, which a source goes on from where it is to write some of each.

They were written for this package. Only the first tokens of each are used.
"""

from __future__ import annotations

OPENINGS = (
    # Verse and plays
    "The wind had laid its hand upon the sea,\nAnd all the boats came home before the night,\n",
    "O moon, that on these silent waters lies,\nWhy dost thou turn thy face away from me?\n",
    "Down in the valley the river runs slow,\n  Hey ho, the river,\nAnd there in the morning",
    "FIRST SOLDIER:\nWho comes? Stand still and speak thy name, or else\n",
    "The Queen. What news, good sir? Thou lookest pale.\n\nMessenger. Madam, the",
    "INT. KITCHEN - NIGHT\n\nA woman stands at the window. The phone rings.\n\nWOMAN\n",
    # Stories and speech
    "“You should not have come back,” she said, and put down the lamp. He did not",
    "Once upon a time there was a little fox who lived under the roots of an old",
    "And it came to pass in those days that the people of the land went up unto the",
    "Q: How did you first hear about the job?\nA: Well, I was at the time working",
    "- Are you coming tonight?\n- No idea. lol\n- come on, everyone will be there\n- ",
    "Ladies and gentlemen, I stand before you today because I believe that we",
    # Letters and everyday texts
    "Dear Sir or Madam,\n\nI am writing to you with regard to the invoice that I",
    "Hi all,\n\njust a quick note that the meeting on Thursday has been moved to",
    "I bought this two months ago and I honestly can't recommend it. The battery",
    "Ingredients:\n\n- 2 cups of flour\n- 1 tsp salt\n- 3 eggs\n\nMethod:\n\n1. ",
    "How to fix a leaking tap\n\nStep 1: Turn off the water. Step 2: Remove the",
    "LONDON, March 4 - Shares fell sharply on Tuesday after the central bank said",
    "9.30 am  Registration and coffee\n10.00 am  Opening remarks\n10.45 am  ",
    # Law, science, numbers
    "Section 4. Termination. (a) Either party may terminate this Agreement upon",
    "Abstract. We study the problem of estimating the mean of a distribution when",
    "Let $x$ and $y$ be real numbers such that $x + y = 10$. Then we have $x^2 + ",
    "Question: A train travels 60 miles in 1.5 hours. How far does it go in 4 hours?\nAnswer: ",
    "| Year | Sales | Change |\n|------|-------|--------|\n| 2009 | 1,204 | +3.1% |\n",
    "id,name,price,stock\n1001,hammer,12.50,38\n1002,wrench,",
    # Code and markup
    "def read_lines(path):\n    lines = []\n    with open(path) as file:\n        for line in",
    "class Queue:\n    def __init__(self, size=16):\n        self._items = []\n\n    def ",
    'import os\nimport sys\n\n\nif __name__ == "__main__":\n    if len(sys.argv) < 2:\n        ',
    "#include <stdio.h>\n\nint main(int argc, char **argv) {\n    for (int i = 0; i < ",
    "public class Account {\n    private double balance;\n\n    public void deposit(",
    "function sum(values) {\n  let total = 0;\n  for (const value of values) {\n    ",
    "SELECT c.name, COUNT(*) AS n\nFROM orders o\nJOIN customers c ON c.id = o.customer_id\n",
    '{\n  "name": "example",\n  "version": "1.0.0",\n  "items": [\n    {\n      "id": ',
    '<div class="header">\n  <ul>\n    <li><a href="/">Home</a></li>\n    <li>',
    "$ ls -la\ntotal 48\ndrwxr-xr-x  5 user user 4096 Jan 12 09:14 .\n",
    "## Installation\n\nYou need Python 3.9 or later.\n\n```bash\npip install ",
    # Other languages
    "Die Stadt liegt am Ufer des Flusses und wurde im Jahr 1243 zum ersten Mal",
    "Il était une fois, dans un petit village au bord de la mer, un homme qui",
    "El gobierno anunció el martes que las nuevas medidas entrarán en vigor a",
    "La ricetta è semplice: prima di tutto bisogna lavare le verdure e poi",
    "O Brasil é um país de grandes dimensões, e a sua população vive sobretudo nas",
    "Москва является столицей России. В городе проживает более двенадцати",
    "中国是世界上历史最悠久的国家之一。在古代，人们",
    "日本の首都は東京である。この都市には多くの人が住んでおり、毎日",
    "القاهرة هي عاصمة مصر وأكبر مدنها من حيث عدد السكان، وتقع على",
    "भारत की राजधानी नई दिल्ली है। यहाँ के लोग हिन्दी और पंजाबी बोलते हैं",
)
"""The first tokens of each are what a text begins with."""
